"""Learning rates as a function of the step."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf import ConfigError
from conf.schema import from_config
from hpc.optim.schedule import KINDS, Rates, Schedule

schedules = st.builds(
    Schedule,
    kind=st.sampled_from(KINDS),
    warmup_steps=st.integers(0, 200),
    decay_fraction=st.floats(0, 1),
    final=st.floats(0, 1),
)


@given(schedules, st.integers(1, 2000))
def test_a_rate_is_never_above_its_peak_and_never_zero(schedule: Schedule, steps: int) -> None:
    factors = [schedule.factor(step, steps) for step in range(0, steps, max(1, steps // 50))]
    assert all(0 < factor <= 1 for factor in factors)


@given(schedules, st.integers(10, 2000))
def test_it_rises_once_and_then_only_falls(schedule: Schedule, steps: int) -> None:
    factors = [schedule.factor(step, steps) for step in range(steps)]
    top = factors.index(max(factors))
    assert factors[:top] == sorted(factors[:top])
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(factors[top:]))
    assert top <= steps // 10


def test_wsd_stays_at_its_peak_and_then_falls_in_a_line() -> None:
    schedule = Schedule("wsd", warmup_steps=10, decay_fraction=0.5, final=0.0)
    factors = [schedule.factor(step, 100) for step in range(100)]
    assert set(factors[10:51]) == {1.0}
    assert factors[75] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.02)


def test_what_is_left_at_the_end_is_final() -> None:
    for kind in ("linear", "cosine", "wsd"):
        schedule = Schedule(kind, warmup_steps=0, decay_fraction=0.3, final=0.1)
        assert schedule.factor(9999, 10_000) == pytest.approx(0.1, abs=1e-3)


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    node = {"kind": "step", "warmup_steps": 0, "decay_fraction": 0.0, "final": 0.0}
    with pytest.raises(
        ConfigError,
        match=r"optim\.schedule\.kind=step: choose one of constant, linear, cosine, wsd",
    ):
        from_config(Schedule, node, "optim.schedule")


def test_momentum_warms_up_in_muons_groups_only() -> None:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1, "momentum": 0.95}, {"lr": 0.01}])
    schedule = Schedule("constant", 0, 0.0, 0.0, momentum_warmup_steps=10)
    rates = Rates(optimizer, schedule, steps=100)
    seen = []
    for step in (0, 5, 10, 99):
        rates.set(step)
        seen.append(optimizer.param_groups[0]["momentum"])
    assert seen == pytest.approx([0.85, 0.9, 0.95, 0.95])
    assert "momentum" not in optimizer.param_groups[1]


def test_zero_3_which_reads_momentum_elsewhere_is_told_too() -> None:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1, "momentum": 0.95}], muon_beta=0.95)
    Rates(optimizer, Schedule("constant", 0, 0.0, 0.0, momentum_warmup_steps=10), steps=100).set(0)
    assert optimizer.muon_beta == pytest.approx(0.85)


def test_each_group_keeps_its_own_peak_whatever_a_checkpoint_put_there() -> None:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.01}])
    rates = Rates(optimizer, Schedule("linear", 0, 0.0, 0.0), steps=10)
    optimizer.param_groups[1]["lr"] = 0.5
    assert rates.set(5) == pytest.approx(0.05)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.005])
