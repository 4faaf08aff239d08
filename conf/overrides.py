"""Overrides that Hydra's grammar does not take, and how to quote them so that it does.

A value with `=`, a space or a letter beyond ASCII in it is a text that wants quotes, see
https://hydra.cc/docs/advanced/override_grammar/basic/#quoted-values
The quotes are put there where the value can be nothing but a text: a path or a name, as in
`ckpt/epoch=9-step=1.pt`.
"""

from __future__ import annotations

import re
import shlex

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

PLAIN_TEXT = re.compile(r"[\w./@%+=-]+")
"""A value without a letter that Hydra's grammar or a shell gives a meaning, but for its `=`."""


def text_quoted(text: str) -> str:
    """`text`, its value in quotes where only they are missing to a path or a name."""
    _, _, value = text.partition("=")
    if not PLAIN_TEXT.fullmatch(value) or _parses(text):
        return text
    return quoted(text) or text


def unparsed(text: str) -> str:
    """The sentence for an override that does not parse, with what to type for it."""
    fault = f"override {text!r} does not parse"
    if advice := quoting(text):
        return f"{fault}; where its value is one text, quote it: {advice}"
    return f"{fault}; write key=value (see lockgate train --help)"


def quoting(text: str) -> str:
    """The override as a word of a shell, its value quoted; empty where quotes would not help."""
    as_text = quoted(text)
    return shlex.quote(as_text) if as_text else ""


def quoted(text: str) -> str | None:
    """`key=value` with the value in quotes; None where that would not be this key and this text."""
    key, equals, value = text.partition("=")
    if not equals or value[:1] in ("", "'", '"'):
        return None
    mark = "'" if '"' in value else '"'
    made = f"{key}={mark}{value}{mark}"
    try:
        override = OverridesParser.create().parse_override(made)
    except HydraException:
        return None
    return made if override.value() == value else None


def _parses(text: str) -> bool:
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:
        return False
    return True
