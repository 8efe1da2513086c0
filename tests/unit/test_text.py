"""Hostile text stays text; secrets do not stay."""

import base64
import html
import json
import time
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hikeshi.screen import safe
from hikeshi.text import HIDDEN, Redactor, one_line, printable, well_formed


@given(st.text())
def test_no_control_character_reaches_the_screen(text: str) -> None:
    shown = printable(text, 10_000)
    assert not any(ord(char) < 32 and char not in "\t\n" or 127 <= ord(char) < 160 for char in shown)
    shown.encode()


def test_halves_of_characters_are_shown_not_sent() -> None:
    assert printable("a\udcff\ud800") == "a\\xdcff\\xd800"
    assert well_formed("a\udcff") == "a\\udcff"


def test_terminal_and_markup_tricks_are_shown_not_done() -> None:
    assert safe("\x1b[2J[red]x[/red]\u202e") == "\\x1b[2J\\[red]x\\[/red]\\x202e"


def test_long_text_is_cut_and_says_so() -> None:
    assert printable("x" * 50, 10) == "x" * 10 + "… (40 more characters)"


def test_known_secrets_and_secret_keys_are_hidden() -> None:
    redactor = Redactor(["s3cret-value", "abc"])
    assert redactor.text("user=shop password is s3cret-value") == f"user=shop password is {HIDDEN}"
    assert redactor.text("abc") == "abc"
    assert redactor.data({"login_password": "x", "list": ["s3cret-value", 3], "token": ""}) == {
        "login_password": HIDDEN,
        "list": [HIDDEN, 3],
        "token": "",
    }


def test_key_with_a_dot_still_names_a_secret() -> None:
    for told in ({"db.password": ["hunter2xx"]}, {"stripe.secret": {"value": "hunter2xx"}}):
        assert Redactor([]).data(told) == dict.fromkeys(told, HIDDEN)


def test_a_unit_or_file_that_is_called_like_a_secret_is_none() -> None:
    told = {
        "systemd-ask-password-wall.service": {"log": ["no"]},
        "/etc/tokens": {"password": "x"},
        "secret.example": ["::1"],
    }
    assert Redactor([]).data(told) == {**told, "/etc/tokens": {"password": HIDDEN}}
    assert Redactor([]).data({"secrets": {"a": "x"}, "app.password": "x"}) == {
        "secrets": HIDDEN,
        "app.password": HIDDEN,
    }


def test_one_line_is_one_line() -> None:
    assert one_line("a\r\nb\tc\u2028d\x1b") == "a\\nb\\tc\\x2028d\\x1b"


@given(st.text(min_size=6), st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_secret_never_survives(secret: str, data: object) -> None:
    assert secret not in Redactor([secret]).text(f"before {secret} after") or secret in HIDDEN
    Redactor([secret]).data(data)


CANARIES = [
    "s3cret-value",
    "p&ss w/rd+1",
    'quo"te\\back/slash',
    "鍵は火消し2026",
    "line one\nline two",
    "emoji🔥key",
    "hidden",
]
ENCODINGS: dict[str, Callable[[str], str]] = {
    "raw": lambda text: text,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, inside": lambda text: base64.b64encode(b"user:" + text.encode() + b"!").decode(),
    "base64, inside, one further": lambda text: base64.b64encode(b"shop:x" + text.encode() + b"!!").decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(b"?" + text.encode()).decode(),
    "URL": lambda text: urllib.parse.quote(text, safe=""),
    "URL, path": urllib.parse.quote,
    "URL, small digits": lambda text: urllib.parse.quote(text, safe="").lower() if text.islower() else text,
    "URL, form": urllib.parse.quote_plus,
    "URL, twice": lambda text: urllib.parse.quote(urllib.parse.quote(text)),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON, not only ASCII": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "JSON, slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "Python": lambda text: repr(text)[1:-1],
    "HTML": html.escape,
    "HTML, numbers": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("secret", CANARIES)
def test_encoded_secrets_are_hidden(secret: str, name: str) -> None:
    encoded = ENCODINGS[name](secret)
    shown = Redactor([secret]).text(f"before={encoded} after")
    assert shown.startswith("before")
    assert shown.endswith(" after")
    assert HIDDEN in shown
    assert encoded not in shown.replace(HIDDEN, "")


def test_each_line_of_a_key_is_hidden_where_it_stands_alone() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASC\n-----END KEY-----"
    shown = Redactor([key]).data({"stdout_lines": key.splitlines(), "diff": f"+{key.splitlines()[1]}\n"})
    assert shown == {"stdout_lines": [HIDDEN, HIDDEN, "BAQEFAASC", HIDDEN], "diff": f"+{HIDDEN}\n"}


def test_what_is_no_secret_stays() -> None:
    redactor = Redactor(["s3cret-value"])
    for text in ("s3cret", "S3CRET-VALUE", "100% \\n & more", base64.b64encode(b"something else").decode()):
        assert redactor.text(text) == text


def test_hostile_text_does_not_keep_the_redactor_busy() -> None:
    redactor = Redactor(["\\\\\\\\\\secret", "%25%25%25secret", "aaaaaaaaaaaa"])
    began = time.monotonic()
    for hostile in ("\\" * 20_000, "%25" * 60_000, "&#" + "0" * 200_000, "a" * 11 + "b" * 200_000):
        redactor.text(hostile)
    assert time.monotonic() - began < 20  # a search that grows with the square would take hours
