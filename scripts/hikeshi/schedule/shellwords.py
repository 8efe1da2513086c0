"""The simple commands in a shell's text, wherever they hide: behind sudo, in `sh -c`, in quotes, in words for ssh.

No shell: nothing is expanded but plain variables that the same text sets, and what cannot be read is left as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 256 * 1024  # characters; the rest is not read
_MOST = 4 * LONGEST  # characters read in all, what stands in quotes or in variables more than once
_DEEPEST, _WRAPPED = 5, 20  # quotes in quotes; programs that run a program
_VALUE, _WORD = 200, 4096  # characters of a variable that is put in, and of a word that it is put into
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r]+|\\\n)
      | (?P<comment>\#[^\n]*)
      | (?P<redirect>\d*(?:>>|>\||&>>|&>|>|<<<|<<-?|<>|<)(?:&(?=[\d-]))?)
      | (?P<end>&&|\|\||;;|[\n;|&()`]|\$\()
      | (?P<word>(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|\$(?!\()|[^\s;&|()<>`"'\\$]|["'\\])+)""",
    re.VERBOSE | re.DOTALL,
)
_QUOTES = re.compile(r"""\\(.)|'([^']*)'|"((?:\\.|[^"\\])*)"|(["'\\])""", re.DOTALL)
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)\+?=(.*)", re.DOTALL | re.ASCII)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", re.ASCII)
_KEYWORDS = frozenset({
    "if", "then", "elif", "else", "fi", "do", "done", "while", "until", "!", "{", "}", "time", "esac",
})  # fmt: skip
_SHELLS = re.compile(r"(?:ba|da|a|z|k|c|tc|fi)?sh")
# Programs that run another: which of their options take a value, and how many words stand before the command.
_WRAPPERS: dict[str, tuple[str, int]] = {
    "sudo": ("ughpCrtTUDR", 0), "doas": ("uC", 0), "env": ("uCS", 0), "nice": ("n", 0), "ionice": ("cnpPu", 0),
    "nohup": ("", 0), "setsid": ("", 0), "timeout": ("sk", 1), "flock": ("wEc", 1), "stdbuf": ("ioe", 0),
    "chroot": ("", 1), "unshare": ("", 0), "nsenter": ("tSG", 0), "runuser": ("ugG", 0), "setpriv": ("", 0),
    "chrt": ("", 1), "taskset": ("", 1), "xargs": ("nIPLdsEa", 0), "chronic": ("", 0), "systemd-run": ("pulEtMHSG", 0),
    "systemd-inhibit": ("", 0), "watch": ("n", 0), "exec": ("a", 0), "command": ("", 0), "builtin": ("", 0),
    "busybox": ("", 0), "time": ("fo", 0), "cronic": ("", 0), "choom": ("n", 0), "parallel": ("jI", 0),
    "setlock": ("", 1), "softlimit": ("", 0), "start-stop-daemon": ("", 0), "daemonize": ("", 0), "unbuffer": ("", 0),
    "firejail": ("", 0), "sshpass": ("pfe", 0), "su": ("cgGsw", 1), "eval": ("", 0), "run-one": ("", 0),
    "ts": ("", 0), "script": ("c", 0),
}  # fmt: skip
_FIND_RUNS = ("-exec", "-execdir", "-ok", "-okdir")
_SSH = re.compile(r"ssh|slogin|rsh|autossh|mosh")
_SSH_VALUES = "BbcDEeFIiJLlmOopQRSWwM"
KNOWN = frozenset(_WRAPPERS)


@dataclass(frozen=True)
class Command:
    """A program with its words, the first being its path; files that it reads stand among them behind "<"."""

    words: tuple[str, ...]
    piped: bool = False

    @property
    def path(self) -> str:
        """The program as it was written."""
        return self.words[0]

    @property
    def name(self) -> str:
        """The program without its directory."""
        return self.words[0].rpartition("/")[2] or self.words[0]

    @property
    def arguments(self) -> str:
        """The words behind the program in one line, each behind a space; behind " |" when a pipe feeds it. Cut."""
        return (" |" * self.piped + "".join(f" {word}" for word in self.words[1:]))[:_WORD]

    @property
    def too_long(self) -> bool:
        """Whether not all of the words stand in that line."""
        return sum(len(word) + 1 for word in self.words[1:]) + 2 > _WORD


def commands(text: str) -> tuple[list[Command], bool]:
    """Return the simple commands of a text, those that they run in turn, too, and whether all of it was read."""
    reader = _Reader()
    found = list(reader.commands(text, 0))
    return found, not reader.cut


class _Reader:
    """Goes through a text; what it reads twice is bounded, or a host could keep us busy for ever."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self.left = _MOST
        self.cut = False

    def commands(self, text: str, depth: int) -> Iterator[Command]:
        if depth > _DEEPEST or self.left <= 0 or len(text) > LONGEST:
            self.cut = True
        if depth > _DEEPEST or self.left <= 0:
            return
        text = text[:LONGEST]
        self.left -= len(text)
        words: list[str] = []
        piped, target = False, ""
        for token in _TOKEN.finditer(f"{text}\n"):
            kind, said = token.lastgroup, token[0]
            if kind == "redirect":
                target = "&" if said.endswith("&") else ">" if ">" in said else "<"
            elif kind == "word":
                word = self._substituted(said)
                yield from self._inside(word, depth)
                plain = _plain(word)
                if target == ">":
                    yield Command((">", plain))
                elif target == "<":
                    words += ["<", plain]
                elif target != "&":
                    words.append(plain)
                target = ""
            elif kind == "end":
                yield from self._run(words, depth, piped=piped)
                words, target, piped = [], "", said == "|"

    def _inside(self, word: str, depth: int) -> Iterator[Command]:
        """Yield the commands whose output is part of a word in double quotes."""
        if '"' not in word:
            return
        begin, end = word.find("$("), word.rfind(")")
        if 0 <= begin < end:
            yield from self.commands(word[begin + 2 : end], depth + 1)
        for inner in word.split("`")[1::2]:
            yield from self.commands(inner, depth + 1)

    def _substituted(self, word: str) -> str:
        if "$" not in word or word.startswith("'") or len(word) > _WORD:
            return word
        return _VARIABLE.sub(lambda name: self.variables.get(name[1] or name[2], name[0]), word)

    def _run(self, words: list[str], depth: int, wrapped: int = 0, *, piped: bool) -> Iterator[Command]:
        """Yield what a simple command comes to: itself, or what it is a wrapper of."""
        if wrapped > _WRAPPED:
            self.cut = True
            return
        at = 0
        while at < len(words):
            if words[at] in ("for", "case", "select", "function"):
                return
            if (assigned := _ASSIGNED.fullmatch(words[at])) is not None:
                self.variables[assigned[1]] = assigned[2][:_VALUE]
            elif words[at] not in _KEYWORDS:
                break
            at += 1
        words = words[at:]
        if not words or words[0] in ("", "<"):
            return
        if " " in words[0].strip() and not words[0].startswith("/"):  # a variable that holds a whole command
            yield from self.commands(" ".join(words), depth + 1)
            return
        command = Command(tuple(words), piped)
        name = command.name
        if _SHELLS.fullmatch(name) and (inner := _option_c(words)) is not None:
            yield from self.commands(inner, depth + 1)
        elif name in _WRAPPERS:
            yield from self._wrapped(name, words, depth, wrapped, piped=piped)
        else:
            yield command
        if _SSH.fullmatch(name):
            yield from self.commands(" ".join(_behind(words[1:], _SSH_VALUES, 1)), depth + 1)
        elif name == "find":
            at = next((at for at, word in enumerate(words) if word in _FIND_RUNS), len(words))
            inside = [word for word in words[at + 1 :] if word not in ("{}", "+")]
            yield from self._run(inside, depth, wrapped + 1, piped=False)
        elif name == "trap":
            yield from self.commands("\n".join(words[1:2]), depth + 1)

    def _wrapped(self, name: str, words: list[str], depth: int, wrapped: int, *, piped: bool) -> Iterator[Command]:
        if name in ("su", "runuser", "flock", "script") and (inner := _option_c(words)) is not None:
            yield from self.commands(inner, depth + 1)
            return
        values, before = _WRAPPERS[name]
        inside = _behind(words[1:], values, before)
        if name in ("eval", "watch", "parallel") or (name == "env" and "-S" in words):
            yield from self.commands(" ".join(inside or words[1:]), depth + 1)
        elif inside:
            yield from self._run(inside, depth, wrapped + 1, piped=piped)


def _plain(word: str) -> str:
    """Return a word without its quotes."""
    if not re.search(r"[\\'\"]", word):
        return word

    def unquoted(found: re.Match[str]) -> str:
        if found[3] is not None:
            return re.sub(r'\\([\\"$`\n])', r"\1", found[3])
        return found[1] or found[2] or ""

    return _QUOTES.sub(unquoted, word)


def _behind(words: list[str], values: str, before: int) -> list[str]:
    """Return what stands behind options, their values, and some words."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            at += 1
            break
        takes = not words[at].startswith("--") and words[at][-1] in values and not words[at][1:-1].isdigit()
        at += 2 if takes else 1
    return words[at + before :]


def _option_c(words: list[str]) -> str | None:
    """Return the commands that a shell, or su, is given with -c."""
    for at, word in enumerate(words[1:], start=1):
        if word in ("--command", "-c") or re.fullmatch(r"-[a-z]*c[a-z]*", word):
            return words[at + 1] if at + 1 < len(words) else ""
        if word.startswith("--command="):
            return word.partition("=")[2]
    return None
