"""The practice shop's attacker: asks one address for one path from many of its own, at a bounded rate; tells what came.

    flooder.py TO PATH AGENT RATE SECONDS FROM…

Standard library of Debian's python3; runs on client1, which has the addresses. RATE is per address and second. Prints
one JSON object on stdout when it is over: began (seconds since the epoch), and how many answers of each status.
"""

import collections
import http.client
import json
import sys
import threading
import time

MOST_RATE, MOST_SECONDS, MOST_ADDRESSES = 200, 30, 40
TIMEOUT_S = 15


def main() -> None:
    """Send for some seconds, from all addresses at once."""
    to, path, agent, rate, seconds, *addresses = sys.argv[1:]
    if not 0 < float(rate) <= MOST_RATE or not 0 < float(seconds) <= MOST_SECONDS or len(addresses) > MOST_ADDRESSES:
        sys.exit(f"at most {MOST_RATE} requests/s each of {MOST_ADDRESSES} addresses, for {MOST_SECONDS} s")
    answers: collections.Counter[int] = collections.Counter()
    lock, began = threading.Lock(), time.time()

    def ask(address: str) -> None:
        number = 0
        while (due := began + number / float(rate)) < began + float(seconds):
            time.sleep(max(0.0, due - time.time()))
            number += 1
            status = 0
            connection = http.client.HTTPConnection(to, 80, timeout=TIMEOUT_S, source_address=(address, 0))
            try:
                connection.request("GET", path, headers={"Host": "shop.example", "User-Agent": agent})
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                pass  # no answer is what 0 says
            finally:
                connection.close()
            with lock:
                answers[status] += 1

    threads = [threading.Thread(target=ask, args=(address,)) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"began": began, "answers": answers}))


main()
