from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.resume.rates import rate_sentence
from hpc.optim.schedule import KINDS, Schedule


@given(
    st.sampled_from(KINDS), st.integers(0, 20), st.integers(1, 40), st.integers(1, 60),
    st.integers(1, 60),
)  # fmt: skip
def test_silent_where_no_step_has_another_rate_and_only_there(
    kind: str, warmup: int, done: int, more: int, others: int
) -> None:
    schedule = Schedule(kind, warmup, 0.5, 0.1)
    before, after = done + more - 1, done + others
    sentence = rate_sentence(schedule, done, before, after)
    same = all(
        schedule.factor(step, before) == schedule.factor(step, after)
        for step in range(min(before, after))
    )
    assert (sentence == "") == same


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cosine", "step 20 had 0.00616 of the peak rate, step 21 of 40 has 0.5"),
        ("constant", ""),
    ],
)
def test_a_longer_cosine_is_said_with_its_rates(kind: str, words: str) -> None:
    sentence = rate_sentence(Schedule(kind, 0, 0.5, 0.0), 20, 20, 40)
    assert words in sentence if words else sentence == ""
    assert ("had other rates until here" in sentence) == bool(words)
