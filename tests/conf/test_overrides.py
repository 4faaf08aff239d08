"""Overrides that do not parse: the sentence has what to type, and that does parse."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st

from conf import ConfigError, compose, options
from conf.overrides import quoted, text_quoted, unparsed

TASK = f"task={options('task')[0]}"


@pytest.mark.parametrize(
    "text",
    [
        "+note=\u674e \u660e",
        "+note=a=b c",
        "+note=it's",
        "+note=a;b",
        "+note=~/data",
        '+note=the "best"',
        "+note=x(1",
    ],
)
def test_a_text_that_wants_quotes_is_answered_with_them(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose("train", [TASK, text])
    _, _, advice = str(refused.value).partition("quote it: ")
    (typed,) = shlex.split(advice)
    override = OverridesParser.create().parse_override(typed)
    key, _, value = text.partition("=")
    assert (override.value(), override.key_or_group) == (value, key.lstrip("+"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+note=ckpt/epoch=9-step=1.pt", "ckpt/epoch=9-step=1.pt"),
        ("+note=\u674e\u660e", "\u674e\u660e"),
        ("+note=/data/\u674e\u660e/x=1", "/data/\u674e\u660e/x=1"),
        ("+note==", "="),
        # Those that Hydra's grammar takes are what it makes of them.
        ("+note=1e3", 1000.0),
        ("+note=null", None),
        ("+note=a/b.pt", "a/b.pt"),
    ],
)
def test_a_path_or_a_name_is_taken_as_it_is_typed(text: str, value: object) -> None:
    assert compose("train", [TASK, text]).note == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("init=ckpt/epoch=9-step=1.pt", "init: there is no such key in train. Nearest: init_from"),
        ("cluster=\u674e\u660e", "cluster=\u674e\u660e: there is no such cluster. Valid: box"),
        ("model=a=b", "model=a=b: there is no such model. Valid:"),
    ],
)
def test_a_text_where_none_fits_is_answered_by_its_key(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose("train", [TASK, text])
    assert str(refused.value).startswith(sentence)


@given(st.text())
def test_only_a_text_that_would_not_parse_gets_quotes(value: str) -> None:
    made = text_quoted(f"note={value}")
    if made != f"note={value}":
        assert OverridesParser.create().parse_override(made).value() == value
        with pytest.raises(HydraException):
            OverridesParser.create().parse_override(f"note={value}")


@pytest.mark.parametrize("text", ["seed", "a b=1", "=", "seed='1", 'seed="1'])
def test_where_quotes_do_not_help_the_form_is_named(text: str) -> None:
    assert unparsed(text).endswith("does not parse; write key=value (see lockgate train --help)")


@given(st.text())
def test_quotes_keep_the_text_or_are_not_offered(value: str) -> None:
    made = quoted(f"note={value}")
    assert made is None or OverridesParser.create().parse_override(made).value() == value
