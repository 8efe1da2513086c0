"""Speak with a port: relay.py ADDRESS PORT hands on what comes on standard input, and what is answered.

Runs on a bench that is in a network with a rehearsed machine, where this one is not.
"""

import os
import select
import socket
import sys


def main(address: str, port: str) -> None:
    """Hand on until the other side has said all; the end of our side is told to it."""
    peer = socket.create_connection((address, int(port)), 8)
    peer.settimeout(None)
    targets = {0: peer.fileno(), peer.fileno(): 1}
    while True:
        for source in select.select(list(targets), [], [])[0]:
            told = os.read(source, 65536)
            rest = memoryview(told)
            while rest:
                rest = rest[os.write(targets[source], rest) :]
            if told:
                continue
            if source:
                return
            peer.shutdown(socket.SHUT_WR)
            del targets[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
