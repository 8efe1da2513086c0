"""Reach a bench through a command of its driver's, which runs what is said behind it there.

Everything goes through that command's three pipes, files as well: nothing is opened on the controller by a name that
came from a disk. How long a call may take and how much it may say is bounded, for who answers may be hostile.
"""

import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase, ensure_connect

DOCUMENTATION = """
    name: bench
    short_description: Run tasks on a bench, or within the disk of a copy
    description:
        - Runs each command behind the driver's own words, as C(podman exec --interactive NAME).
        - Sends files through standard input; fetches none.
    options:
        command:
            description: Words behind which a command and its arguments are run there.
            type: list
            elements: str
            required: true
            vars:
                - name: ansible_bench_command
        seconds:
            description: How long one call may take.
            type: int
            default: 300
            vars:
                - name: ansible_bench_seconds
        bytes:
            description: How much one call may say.
            type: int
            default: 67108864
            vars:
                - name: ansible_bench_bytes
    extends_documentation_fragment:
        - connection_pipelining
"""
PIECE = 1 << 16


class Connection(ConnectionBase):  # type: ignore[misc]
    """One bench. A call that takes too long or says too much is ended, and the bench counts as not reached."""

    transport = "bench"
    has_pipelining = True

    def _connect(self) -> "Connection":
        """Nothing is held open between two calls."""
        self._connected = True
        return self

    @ensure_connect  # type: ignore[untyped-decorator]
    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a command there; return exit status, output and errors."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._call(shlex.split(to_text(cmd)), in_data or b"")

    @ensure_connect  # type: ignore[untyped-decorator]
    def put_file(self, in_path: str, out_path: str) -> None:
        """Write a file there; its name means something only there, whatever it looks like."""
        super().put_file(in_path, out_path)
        status, _, errors = self._call(["/bin/sh", "-c", 'cat > "$0"', out_path], Path(in_path).read_bytes())
        if status:
            raise AnsibleConnectionFailure(f"{out_path} could not be written: {to_text(errors)[-300:]}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Refuse: no step needs a file of a copy on the controller."""
        raise AnsibleConnectionFailure(f"no file is fetched from a bench ({in_path})")

    def close(self) -> None:
        """Nothing to close."""
        self._connected = False

    def _call(self, words: list[str], data: bytes) -> tuple[int, bytes, bytes]:
        """Run words behind the driver's command, with these bytes as input, within the bounds."""
        process = subprocess.Popen(
            [to_bytes(word) for word in (*self.get_option("command"), *words)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        feeder = threading.Thread(target=_feed, args=(process, data), daemon=True)
        with process:
            try:
                feeder.start()
                told = _listen(process, self.get_option("seconds"), self.get_option("bytes"))
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, *told


def _feed(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    """Give a process its input; one that does not want it is free to say why."""
    assert process.stdin  # noqa: S101 (it is a pipe)
    with suppress(OSError):
        process.stdin.write(data)
    with suppress(OSError):
        process.stdin.close()


def _listen(process: "subprocess.Popen[bytes]", seconds: int, most: int) -> tuple[bytes, bytes]:
    """Return what a process says on both pipes until it ends; raise when a bound is passed."""
    told: dict[Any, list[bytes]] = {process.stdout: [], process.stderr: []}
    end, said = time.monotonic() + seconds, 0
    with selectors.DefaultSelector() as ends:
        for pipe in told:
            ends.register(pipe, selectors.EVENT_READ)
        while ends.get_map():
            ready = ends.select(max(end - time.monotonic(), 0))
            if not ready:
                raise AnsibleConnectionFailure(f"what runs on the bench did not end within {seconds} s")
            for key, _ in ready:
                piece = os.read(key.fd, PIECE)
                told[key.fileobj].append(piece)
                said += len(piece)
                if not piece:
                    ends.unregister(key.fileobj)
            if said > most:
                raise AnsibleConnectionFailure(f"what runs on the bench said more than {most} bytes")
            if time.monotonic() > end:
                raise AnsibleConnectionFailure(f"what runs on the bench did not end within {seconds} s")
    try:
        process.wait(max(end - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        raise AnsibleConnectionFailure(f"what runs on the bench did not end within {seconds} s") from None
    return b"".join(told[process.stdout]), b"".join(told[process.stderr])
