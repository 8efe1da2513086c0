"""`hikeshi copy`, killed as by kill -9 just before it calls podman for the N-th time: copy_dies.py ROOT N."""

import os
import signal
import sys
from pathlib import Path

import pytest

from hikeshi.copies import making, podman
from tests.drill import copy_site


def main(root: Path, calls: int) -> None:
    left, words = [calls], podman.Podman._words

    def counted(self: podman.Podman, *arguments: str) -> list[str]:
        if left[0] == 0:
            print(" ".join(arguments[:2]), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return words(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(podman.Podman, "_words", counted)
        making.take(copy_site.look_there(patch, root), approve=lambda told, question: True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
