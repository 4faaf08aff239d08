"""Every token is scored once, with enough before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.runtime.windows import windows


@given(st.integers(0, 400), st.integers(1, 50), st.data())
def test_every_prediction_is_made_in_exactly_one_window(
    tokens: int, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    scored = []
    for window in windows(tokens, context, stride):
        assert 0 <= window.start < window.stop <= tokens - 1
        assert window.stop - window.start <= context
        assert 0 <= window.skip < window.stop - window.start
        first = window.start + window.skip
        if window.start > 0:  # what is cut off on the left leaves at least this much to look at
            assert window.skip >= context - stride
        scored += range(first + 1, window.stop + 1)
    assert scored == list(range(1, tokens))


def test_almost_all_windows_have_one_shape() -> None:
    found = list(windows(1000, 64, 32))
    assert {one.stop - one.start for one in found} == {64}
