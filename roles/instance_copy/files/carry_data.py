#!/usr/bin/python3
"""Bring a directory of data from one mounted disk to another, on a bench, with no system of either running.

    carry_data.py FROM TO PATH SUFFIX

PATH, below the disk FROM, is copied to the same place below TO; what stood there is kept beside it as PATH.SUFFIX, and
kept only once: calling it again makes the copy anew. What is copied is whole before it takes its name, so that a kill
at any point is mended by the next call. No link among the directories above it is followed.
"""

import errno
import os
import shutil
import stat
import subprocess
import sys


def folder(disk, parts):
    """Return the directory at these names below a disk; refuse a link, or anything but a directory, among them."""
    path = disk
    for part in parts:
        path = os.path.join(path, part)
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise OSError(0, "is no directory", path)
    return path


def present(path):
    """Return whether there is anything of this name."""
    return os.path.lexists(path)


def duplicate(origin, target):
    """Make a copy of a directory that is whole before it has its name."""
    new = f"{target}-new"
    if present(new):  # of a call that was killed
        shutil.rmtree(new)
    subprocess.run(["cp", "--archive", "--no-target-directory", "--", origin, new], check=True)
    os.sync()
    os.rename(new, target)


def keep(place, kept):
    """Give what stands somewhere another name; a file system of layers renames no directory of a lower one."""
    try:
        os.rename(place, kept)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        duplicate(place, kept)
        shutil.rmtree(place)


def main(words):
    """Carry; return the exit status."""
    if len(words) != 4:
        print("usage: carry_data.py FROM TO PATH SUFFIX", file=sys.stderr)
        return 2
    source, target, path, suffix = words
    parts = [part for part in path.split("/") if part]
    try:
        origin = folder(source, parts)
        above = folder(target, parts[:-1])
        place, kept, brought = (os.path.join(above, parts[-1] + end) for end in ("", f".{suffix}", f".{suffix}-to"))
        if present(brought):
            shutil.rmtree(brought)
        duplicate(origin, brought)
        if present(place) and not present(kept):
            keep(place, kept)
        elif present(place):  # what an earlier call brought, or what is left of what is kept
            shutil.rmtree(place)
        os.rename(brought, place)
        os.sync()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{path} was not carried: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
