"""Small readers of what templates write: nginx and systemd units, as far as the tests ask."""

import re
from dataclasses import dataclass, field


@dataclass
class Block:
    """A block of an nginx configuration: its directives without the semicolon, and the blocks in it."""

    name: str
    directives: list[str] = field(default_factory=list)
    blocks: list["Block"] = field(default_factory=list)

    def block(self, name: str) -> "Block":
        """Return the only block with this name."""
        (found,) = [item for item in self.blocks if item.name == name]
        return found

    def values(self, directive: str) -> list[str]:
        """Return the values of every directive with this name, in order."""
        return [line.split(None, 1)[1] for line in self.directives if line.split(None, 1)[0] == directive]


def nginx(text: str) -> Block:
    """Read an nginx configuration; an unfinished directive or a brace too much is an error, as it is for nginx."""
    stack, words = [Block("")], ""
    for piece in re.findall(r'"[^"]*"|#[^\n]*|[;{}]|[^;{}"#]+', text):
        if piece.startswith("#"):
            continue
        if piece not in ";{}":
            words += piece
            continue
        name, words = " ".join(words.split()), ""
        if piece == "}":
            assert not name, f"'{name}' has no semicolon"
            stack.pop()
            assert stack, "a closing brace too much"
            continue
        assert name, f"a '{piece}' with nothing before it"
        if piece == ";":
            stack[-1].directives.append(name)
        else:
            stack[-1].blocks.append(Block(name))
            stack.append(stack[-1].blocks[-1])
    assert len(stack) == 1, f"'{stack[-1].name}' is not closed"
    assert not words.strip(), f"'{words.strip()}' has no semicolon"
    return stack[0]


def unit(text: str) -> dict[str, dict[str, list[str]]]:
    """Read a systemd unit: section → key → values."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
            continue
        key, equals, content = line.partition("=")
        assert equals and key == key.strip(), f"systemd does not read '{line}'"
        section.setdefault(key, []).append(content.strip())
    return found


def environment(text: str) -> dict[str, str]:
    """Read an EnvironmentFile as systemd does: parse_env_file_internal() of its basic/env-file.c, state by state."""
    found: dict[str, str] = {}
    state, key, content, end = "before key", "", "", 0
    for char in f"{text}\n":
        newline = char in "\n\r"
        if state == "before key":
            if char in "#;":
                state = "comment"
            elif not char.isspace():
                state, key, content, end = "key", char, "", 0
        elif state == "comment":
            state = "before key" if newline else "escaped comment" if char == "\\" else "comment"
        elif state == "escaped comment":
            state = "comment"
        elif state == "key":
            state = "before key" if newline else "before value" if char == "=" else "key"
            key += char if state == "key" else ""
        elif state in ("before value", "value"):
            if newline:
                found[key.rstrip()] = content[:end] if state == "value" else content
                state = "before key"
            elif char == "\\":
                state = "escaped"
            elif state == "before value" and char in "\"'":
                state = char
            elif state == "value" or char not in " \t":
                state, content = "value", content + char
                end = end if char in " \t" else len(content)
        elif state == "escaped":
            state, content = "value", content + ("" if newline else char)
            end = len(content)
        elif state == char:  # the closing quote: what follows may be quoted again
            state = "before value"
        elif state == '"' and char == "\\":
            state = "escaped in quotes"
        elif state == "escaped in quotes":
            state, content = '"', content + (char if char in '"\\`$' else "" if char == "\n" else f"\\{char}")
        else:
            content += char
    assert state == "before key", f"the file ends within {key}"
    return found


def escaped_path(path: str) -> str:
    """Escape a path as `systemd-escape --path` does."""
    text = "/".join(part for part in path.split("/") if part)
    escaped = "".join(
        "-" if char == "/" else char if re.match(r"[a-zA-Z0-9:_.]", char) else _bytes(char) for char in text
    )
    return _bytes(".") + escaped[1:] if escaped.startswith(".") else escaped


def _bytes(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode())
