"""Copying, swapping, rescuing: killed as by kill -9 just before the N-th call of podman: copy_dies.py ROOT VERB N."""

import os
import signal
import sys
from pathlib import Path

import pytest

from hikeshi.copies import making, podman, record, rescue, swap
from tests.drill import copy_site


def main(root: Path, verb: str, calls: int) -> None:
    left, words = [calls], podman.Podman._words

    def counted(self: podman.Podman, *arguments: str) -> list[str]:
        if left[0] == 0:
            print(" ".join(arguments[:2]), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return words(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(podman.Podman, "_words", counted)
        site = copy_site.look_there(patch, root)
        if verb == "copy":
            making.take(site, approve=lambda told, question: True)
        elif verb == "rescue":
            rescue.rescue(site, "web1", ask=lambda told, question: True)
        else:
            {"in": swap.swap_in, "back": swap.swap_back}[verb](site, record.read_all(site)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
