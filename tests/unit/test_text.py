"""Hostile text stays text; secrets do not stay."""

from hypothesis import given
from hypothesis import strategies as st

from hikeshi.screen import safe
from hikeshi.text import HIDDEN, Redactor, printable


@given(st.text())
def test_no_control_character_reaches_the_screen(text: str) -> None:
    shown = printable(text, 10_000)
    assert not any(ord(char) < 32 and char not in "\t\n" or 127 <= ord(char) < 160 for char in shown)


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


@given(st.text(min_size=6), st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_secret_never_survives(secret: str, data: object) -> None:
    assert secret not in Redactor([secret]).text(f"before {secret} after") or secret in HIDDEN
    Redactor([secret]).data(data)
