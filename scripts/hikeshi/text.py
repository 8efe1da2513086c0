"""Text that comes from hosts is hostile: nothing of it is interpreted, and secrets are taken out before it is kept."""

import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "[hidden]"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SECRET_KEY = re.compile(r"(?i)(passw|secret|token|api_?key|private_?key|credential)")


def printable(text: object, limit: int = 2000) -> str:
    """Return text with control and direction-changing characters shown as escapes, cut at `limit` characters."""
    shown = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(text).replace("\r\n", "\n"))
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({len(shown) - limit} more characters)"


class Redactor:
    """Takes known secrets, and values under keys that name a secret, out of text and data."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Remember the secrets; values under 6 characters would hide half of every text and are left to their keys."""
        self._secrets = sorted({secret for secret in secrets if len(secret) >= 6}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return the text without any known secret."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def data(self, value: Any) -> Any:
        """Return nested data without any known secret and without values whose key names one."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(str(key)): HIDDEN if _SECRET_KEY.search(str(key)) and item else self.data(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.data(item) for item in value]
        return value
