"""What a host would tell of its schedules, made by hand."""

import base64
from datetime import UTC, datetime
from typing import Any

NOW = datetime.fromisoformat("2026-11-26T05:00+00:00")  # 14:00 in Tokyo, a Thursday
AT = """#!/bin/sh
# atrun uid=0 gid=0
# mail root 0
umask 22
DB_PASSWORD=s3cret\\-value; export DB_PASSWORD
NOTE=two"
"lines\\;\\ here; export NOTE
cd /root || {
\t echo 'Execution directory inaccessible' >&2
\t exit 1
}
"""
ANACRONTAB = """SHELL=/bin/sh
HOME=/root

1\t5\tcron.daily\trun-parts --report /etc/cron.daily
7\t10\tcron.weekly\trun-parts --report /etc/cron.weekly
@monthly\t15\tcron.monthly\trun-parts --report /etc/cron.monthly
"""
CRONTAB = """SHELL=/bin/sh
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
"""


def file(path: str, source: str, text: str | bytes, **more: Any) -> dict[str, Any]:
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return {
        "path": path, "source": source, "owner": "root", "uid": 0, "gid": 0, "mode": "0644", "mtime_ns": 1,
        "size": len(content), "b64": base64.b64encode(content).decode(), "truncated": False, **more,
    }  # fmt: skip


def at(commands: str | bytes, when: datetime, number: int = 3, queue: str = "a", **more: Any) -> dict[str, Any]:
    name = f"{queue}{number:05x}{int(when.timestamp()) // 60:08x}"
    body = commands.encode("utf-8", "surrogateescape") if isinstance(commands, str) else commands
    return file(f"/var/spool/cron/atjobs/{name}", "at", AT.encode() + body + b"\n", **{"mode": "0700", **more})


def timer(unit: str, **more: Any) -> dict[str, Any]:
    return {
        "unit": unit, "triggers": unit.replace(".timer", ".service"), "calendar": [], "monotonic": [],
        "persistent": False, "randomized_delay_s": 0.0, "fixed_random_delay": False, "accuracy_s": 60.0,
        "active": True, "enabled": "enabled", "next": None, "last": None, "stamp": None,
        "needs_reload": False, "file": f"/lib/systemd/system/{unit}",
        "drop_ins": [], "commands": ["/usr/sbin/logrotate /etc/logrotate.conf"], "user": "root", **more,
    }  # fmt: skip


def host(*files: dict[str, Any], timers: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1, "now": NOW.timestamp(), "boot": NOW.timestamp() - 3600, "zone": "Asia/Tokyo", "offline": False,
        "files": list(files), "timers": timers or [], "reboot_units": [], "reboot_required": False,
        "held": [], "unseen": [],
        "daemons": {"atd": "active", "cron": "active", "anacron": "absent", "unattended-upgrades": "absent"}, **more,
    }  # fmt: skip


def now(*files: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the same of a host whose clock is right."""
    at = datetime.now(UTC).timestamp()
    return host(*files, **{"now": at, "boot": at - 3600, **more})
