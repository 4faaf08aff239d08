"""Windows that score a long text with a model of limited context, the same on every side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Feed tokens[start:stop]; position i predicts token start + i + 1. The first `skip`
    predictions were scored by an earlier window and only give context here."""

    start: int
    stop: int
    skip: int


def windows(tokens: int, context: int, stride: int) -> Iterator[Window]:
    """Cover the predictions of tokens 1..tokens-1, each scored in exactly one window.

    After the first window each prediction has at least `context - stride` tokens before it. The
    last window is moved back to be full, so that almost all windows have one shape.
    """
    assert 0 < stride <= context
    scored = 0  # predictions done; prediction p is of token p + 1
    while scored < tokens - 1:
        stop = min(tokens - 1, context if scored == 0 else scored + stride)
        start = max(0, stop - context)
        yield Window(start, stop, scored - start)
        scored = stop
