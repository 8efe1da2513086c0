"""What is scheduled on the site's hosts, when it goes off next and what it would do. No host, no clock, no chance."""
