"""Names of any bytes are shown in one harmless line."""

import os

import pytest

from kaapana_assets.errors import NotFound
from kaapana_assets.shown import shown, shown_lines, shown_output

NAMES = {
    "plain": ("CT 1.dcm", "CT 1.dcm"),
    "letters of all scripts": ("Größe 山田 שרון", "Größe 山田 שרון"),
    "latin-1 bytes": (os.fsdecode(b"bad\xe9.dcm"), "bad\\xe9.dcm"),
    "line breaks": ("a\nb\rc\u2028d", "a\\nb\\rc\\u2028d"),
    "terminal control": ("\x1b[31mred\x07\x9b", "\\x1b[31mred\\x07\\x9b"),
    "direction of writing": ("a\u202egpj.exe\u2066", "a\\u202egpj.exe\\u2066"),
    "joiners of Persian and emoji": ("نمی\u200cشود", "نمی\u200cشود"),
    "lone surrogate of no byte": ("\ud800", "\\ud800"),
    "markup": ("<b>&", "<b>&"),
}


@pytest.mark.parametrize(("name", "said"), NAMES.values(), ids=NAMES)
def test_name_is_one_line_that_can_be_encoded(name, said):
    assert shown(name) == said
    shown(name).encode("utf-8")
    assert "\n" not in shown(name)


def test_lines_and_tabs_of_a_text_stay():
    assert shown_lines("one\n\ttwo\x1b") == "one\n\ttwo\\x1b"


def test_colours_and_tabs_of_what_a_program_printed_stay():
    said = "\x1b[1;31mred\x1b[0m\tGröße"
    assert shown_output(said) == said
    assert shown_output(f"\x1b]0;title\x07{said}\x1b[2J") == f"\\x1b]0;title\\x07{said}\\x1b[2J"


def test_text_of_every_error_can_be_encoded():
    name = os.fsdecode(b"caf\xe9")
    assert str(NotFound(f"{name} is\nnot there")) == "caf\\xe9 is\nnot there"
