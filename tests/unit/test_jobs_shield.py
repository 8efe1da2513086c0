"""The shield's rules, in a real dbus-daemon: root's own request is refused, and who asked is in its log."""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.jobs_host import Host

LOGIN = "org.freedesktop.login1"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={0}/bus</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="method_return"/>
<allow send_type="error"/><allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="error"/><allow receive_type="signal"/></policy>
<policy user="root"><allow send_destination="org.freedesktop.login1"/></policy>
<includedir>{0}/system.d</includedir></busconfig>"""

pytestmark = pytest.mark.skipif(
    not shutil.which("dbus-daemon") or not shutil.which("busctl"), reason="needs dbus-daemon and busctl"
)


def call(serial: int, member: str, signature: str = "", body: bytes = b"") -> bytes:
    """Return a call to the bus itself, as the D-Bus specification lays it out."""

    def padded(data: bytes, size: int) -> bytes:
        return data + b"\0" * (-len(data) % size)

    def text(value: str) -> bytes:
        return struct.pack("<I", len(value)) + value.encode() + b"\0"

    fields = b""
    bus = "org.freedesktop.DBus"
    for code, kind, value in ((1, "o", "/org/freedesktop/DBus"), (2, "s", bus), (3, "s", member), (6, "s", bus)):
        fields = padded(fields, 8) + bytes([code, 1]) + kind.encode() + b"\0" + text(value)
    if signature:
        fields = padded(fields, 8) + bytes([8, 1]) + b"g\0" + bytes([len(signature)]) + signature.encode() + b"\0"
    head = b"l\1\0\1" + struct.pack("<III", len(body), serial, len(fields)) + fields
    return padded(head, 8) + body


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Path]:
    """A bus of our own on which somebody answers to logind's name, and never says a word."""
    (tmp_path / "system.d").mkdir()
    (tmp_path / "config").write_text(CONFIG.format(tmp_path))
    words = ["dbus-daemon", f"--config-file={tmp_path}/config", "--nofork", "--nopidfile", "--print-address"]
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log)
    try:
        assert daemon.stdout
        daemon.stdout.readline()
        with socket.socket(socket.AF_UNIX) as owner:
            owner.settimeout(20)
            owner.connect(f"{tmp_path}/bus")
            owner.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
            assert owner.recv(200).startswith(b"OK")
            name = struct.pack("<I", len(LOGIN)) + LOGIN.encode() + b"\0\0" + struct.pack("<I", 0)
            owner.sendall(b"BEGIN\r\n" + call(1, "Hello") + call(2, "RequestName", "su", name))
            told = b""
            while b"NameAcquired" not in told or LOGIN.encode() not in told:
                told += owner.recv(4096)
            yield tmp_path
    finally:
        daemon.terminate()
        daemon.wait()


def asked(bus: Path, *words: str) -> str:
    command = ["busctl", f"--address=unix:path={bus}/bus", "--timeout=1", "call", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stderr


def test_root_is_refused_and_named(bus: Path, tmp_path: Path) -> None:
    jobs = Host(tmp_path).jobs
    manager = (LOGIN, "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
    reread = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "ReloadConfig")
    requests: list[tuple[str, ...]] = [(member, "t", "0") for member in jobs.MEMBERS if member != "ScheduleShutdown"]
    requests.append(("ScheduleShutdown", "st", "reboot", "1"))
    assert "denied" not in asked(bus, *manager, *requests[0]), "without the shield it is passed on"
    (bus / "system.d/shield.conf").write_bytes(jobs.policy())
    asked(bus, *reread)
    for request in requests:
        assert "Access denied" in asked(bus, *manager, *request)
    log = (bus / "log").read_text()
    for member, *_ in requests:
        (line,) = [line for line in log.splitlines() if "Rejected send" in line and f'member="{member}"' in line]
        assert f"(uid={os.geteuid()} pid=" in line and 'comm="busctl' in line
    assert "denied" not in asked(bus, *manager, "CancelScheduledShutdown"), "a hold cancels by this"
    (bus / "system.d/shield.conf").unlink()
    asked(bus, *reread)
    assert "denied" not in asked(bus, *manager, *requests[0])
