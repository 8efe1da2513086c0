"""How many accesses: counted on the hosts where the logs lie, merged, and said here with the method.

`engine` runs the counter of role access_count, on files here or on a site's hosts, and takes in its partials; `window`
reads what was asked; `answer` makes figures of partials, and `reconcile` compares load balancer and web servers, both
pure; `method` says how it was done; `page` and `export` show it.
"""
