"""What the infra tests share: answers, results, and commands that may not fail."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from testinfra.host import Host


@dataclass
class Answer:
    """What came back for a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def data(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Answer]
Apply = Callable[..., "Applied"]
Mend = Callable[..., None]


@dataclass
class Applied:
    """One run of an entry point."""

    status: int
    changed: int
    output: str


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what takes its time, and fail when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {condition}"
        time.sleep(0.2)


def must(host: Host, command: str) -> str:
    """Run a command that may not fail."""
    result = host.run(command)
    assert result.rc == 0, f"{command}: {result.stdout}{result.stderr}"
    return str(result.stdout)
