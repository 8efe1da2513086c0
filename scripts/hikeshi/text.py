"""Text that comes from hosts is hostile: nothing of it is interpreted, and secrets are taken out before it is kept."""

import base64
import html
import ipaddress
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

HIDDEN = "[hidden]"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SECRET_KEY = re.compile(r"(?i)(passw|secret|token|api_?key|private_?key|credential)")
_THING = re.compile(r"/|[^/]+\.(service|socket|timer|path|mount|target)$")  # a path, or the name of a unit
_LINE = 16  # characters; a shorter line of a secret says little, and would hide what is none
_SHORTEST = 6  # characters; shorter values would hide half of every text and are left to their keys
_ENCODED = re.compile(r"[%\\&+]")  # without one of these a text holds no URL, JSON or HTML encoding of anything
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


def printable(text: object, limit: int = 2000) -> str:
    """Return text with control and direction-changing characters shown as escapes, cut at `limit` characters."""
    shown = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(text).replace("\r\n", "\n"))
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({len(shown) - limit} more characters)"


def one_line(text: object, limit: int = 2000) -> str:
    """Return printable text in which line ends and tabs are escapes, too: what a host says makes no line of its own."""
    return printable(text, limit).replace("\n", "\\n").replace("\t", "\\t")


def well_formed(text: str) -> str:
    """Return text that every encoder accepts: bytes of the command line that are no UTF-8 are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class Redactor:
    r"""Takes known secrets, and values under keys that name a secret, out of text and data.

    A secret is found as it is, in base64 (alone or inside something longer), percent-encoded, and escaped as in JSON,
    Python or HTML, wholly or in part.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Remember the secrets, the longest first: a short one may be part of a long one."""
        # Of a key in many lines, some are shown alone: in a list of lines, in a difference.
        whole = {secret for secret in secrets if len(secret) >= _SHORTEST}
        parts = {line for secret in whole for line in secret.splitlines() if len(line) >= _LINE}
        known = sorted(whole | parts, key=len, reverse=True)
        self._secrets = known
        self._base64 = list(dict.fromkeys(part for secret in known for part in _base64_parts(secret)))
        self._encoded = [re.compile(_any_encoding(secret), re.IGNORECASE) for secret in known]

    def text(self, text: str) -> str:
        """Return the text without any known secret."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for part in self._base64:
            text = _without_words(text, part)
        if _ENCODED.search(text):
            for pattern in self._encoded:
                text = pattern.sub(HIDDEN, text)
        return text

    def data(self, value: Any) -> Any:
        """Return nested data without any known secret and without values whose key names one."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(str(key)): HIDDEN if item and _names_secret(str(key), item) else self.data(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.data(item) for item in value]
        return value


def _names_secret(key: str, item: object) -> bool:
    """Say whether a key names a secret; a unit, a file or a host that is called like one does not."""
    thing = isinstance(item, dict | list) and bool(_THING.match(key))
    host = isinstance(item, list) and all(map(_is_address, item))
    return not thing and not host and bool(_SECRET_KEY.search(key))


def _is_address(item: object) -> bool:
    with suppress(ValueError):
        return isinstance(item, str) and bool(ipaddress.ip_address(item))
    return False


def _base64_parts(secret: str) -> Iterable[str]:
    """Yield what base64 makes of a secret at each of the three places where it can begin in something longer.

    The characters at both ends depend on the neighbours, too; what is left names the secret well enough.
    """
    content = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(content)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(bytes(before) + content + bytes(2)).decode()[first:last]


def _without_words(text: str, part: str) -> str:
    """Hide every run of base64 characters that holds a part: the run's ends hold some of the secret, too."""
    kept, done = [], 0
    while (start := text.find(part, done)) >= 0:
        end = start + len(part)
        while start > done and text[start - 1] in _BASE64:
            start -= 1
        while end < len(text) and (text[end] in _BASE64 or text[end] == "="):
            end += 1
        kept += [text[done:start], HIDDEN]
        done = end
    return "".join(kept) + text[done:]


def _any_encoding(secret: str) -> str:
    """Return the pattern of a secret each of whose characters may be encoded, escaped up to three times over.

    Repetitions are bounded, and a run of backslashes is one: a host that sends a million must not keep us busy.
    """
    parts = []
    for run in re.findall(r"\\+|[^\\]", secret):
        if run[0] == "\\":
            parts.append(rf"(?:\\{{{len(run)},{8 * len(run)}}}|(?:{_encodings(run[0])}){{{len(run)}}})")
        else:
            # Case matters in what is written as it is, not in the digits of an encoding.
            parts.append(rf"(?:(?-i:\\{{0,7}}{re.escape(run)})|{_encodings(run)})")
    return "".join(parts)


def _encodings(char: str) -> str:
    """Return the pattern of one character in every encoding known here."""
    content = char.encode("utf-8", "surrogatepass")
    units = char.encode("utf-16-be", "surrogatepass").hex(" ", 2).split()
    slash, code = r"\\{1,8}", f"{ord(char):x}"
    ways = [
        "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in content),
        "".join(f"{slash}x{byte:02x}" for byte in content),
        "".join(f"{slash}u{unit}" for unit in units),
        rf"{slash}(?:x{code}|u\{{0{{0,5}}{code}\}}|U{code:0>8})",
        rf"&#(?:0{{0,6}}{ord(char)}|x0{{0,6}}{code});",
    ]
    if (named := html.escape(char)) != char:
        ways.append(re.escape(named))
    if char in "\n\r\t\b\f":
        ways.append(slash + {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}[char])
    if char == " ":
        ways.append(r"\+")
    return "|".join(ways)
