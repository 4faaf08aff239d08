"""Overrides that do not parse: the sentence has what to type, and that does parse."""

from __future__ import annotations

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from conf import ConfigError, compose, options
from conf.overrides import quoted, unparsed

TASK = f"task={options('task')[0]}"


@pytest.mark.parametrize(
    "text",
    [
        "init=ckpt/epoch=9-step=1.pt",
        "+init=ckpt/epoch=9-step=1.pt",
        "+note=\u674e\u660e",
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


@pytest.mark.parametrize("text", ["seed", "a b=1", "=", "seed='1", 'seed="1'])
def test_where_quotes_do_not_help_the_form_is_named(text: str) -> None:
    assert unparsed(text).endswith("does not parse; write key=value (see lockgate train --help)")


@given(st.text())
def test_quotes_keep_the_text_or_are_not_offered(value: str) -> None:
    made = quoted(f"note={value}")
    assert made is None or OverridesParser.create().parse_override(made).value() == value
