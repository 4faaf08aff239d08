"""Names: what the rule lets through, and the sentence with which it refuses the rest."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import ConfigError
from conf.names import check_name, nearest_name, printable, shown

ODD = {
    "a|b": "a_b",
    "a b": "a_b",
    "a\nb": "a_b",
    "flights\n": "flights",
    "../../x": "x",
    "x" * 300: "x" * 62,
    "": "",
    "fl\u0456ghts": "fl_ghts",  # a Cyrillic i
    "\uff46\uff4c\uff49\uff47\uff48\uff54\uff53": "flights",  # full-width letters
    "caf\u00e9": "cafe",
    ".hidden": "hidden",
    "-rf": "rf",
    "a\x00b": "a_b",
    "a\x1b[2Jb": "a_2Jb",
    "a\u2028b": "a_b",
    "a\u202eb": "a_b",
    "a..b": "a_b",
    "stats": "stats_1",
    "Stats": "Stats_1",
    "snapshots": "snapshots_1",
    "x; touch /tmp/p #": "x_touch_tmp_p",
    "\u4e2d\u6587": "",
}


@pytest.mark.parametrize("name", ["flights", "lm", "a", "_x", "0", "model-3.1_b", "x" * 64, "a.b-"])
def test_a_name_passes_as_it_is(name: str) -> None:
    assert check_name("task.name", name) == name


@pytest.mark.parametrize(("text", "valid"), ODD.items())
def test_another_string_is_refused_with_the_letters_and_a_command(text: str, valid: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_name("task.name", text, "lockgate train task.name={}")
    sentence = str(error.value)
    assert sentence.startswith(f"task.name={shown(text)} ")
    assert "A-Z a-z 0-9 _ . -" in sentence
    assert sentence.isascii() and sentence.isprintable() and len(sentence) < 400
    assert sentence.endswith(f" Type: lockgate train task.name={valid}") == bool(valid)


def test_a_place_may_allow_longer_names() -> None:
    assert check_name("run", "x" * 90, letters=96) == "x" * 90
    with pytest.raises(ConfigError, match="97 letters"):
        check_name("run", "x" * 97, letters=96)


@given(st.text(), st.integers(3, 96))
def test_any_text_is_a_plain_name_or_refused_with_one(text: str, letters: int) -> None:
    try:
        name = check_name("model", text, letters=letters)
    except ConfigError as error:
        assert str(error).isascii() and str(error).isprintable()
        name = nearest_name(text, letters)
        assert name == "" or check_name("model", name, letters=letters) == name
    else:
        assert name == text
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name) and ".." not in name
        assert len(name) <= letters


@given(st.text())
def test_printable_text_shows_all_and_commands_nothing(text: str) -> None:
    shown_text = printable(text)
    assert all(letter.isprintable() or letter in "\t\n" for letter in shown_text)
    if all(letter.isprintable() for letter in text):
        assert shown_text == text
