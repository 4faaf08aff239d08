"""The next values of a sweep, chosen by Optuna out of its ranges and of the trials so far.

Optuna's study is made anew for each choice, from the ledger and the runs, and kept nowhere: the
same trials and the same seed give the same values, in whatever command, after whatever was killed.
See https://optuna.readthedocs.io/en/stable/reference/samplers/index.html
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from conf import ConfigError
from hpc.jobs.spec.axes import Axis
from hpc.jobs.spec.sweeper import RANDOM

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

MOST_REPEATED = 100
"""Points of before that are chosen once more in one choice, before it is given up."""


@dataclass(frozen=True)
class PastTrial:
    """A trial of the sweep: its point, and what became of it."""

    point: dict[str, Any]
    """By the axis's key, a number or a choice in Hydra's grammar."""
    state: Literal["running", "complete", "pruned", "failed"]
    value: float | None = None
    """Of the metric, the lower the better; of a complete trial alone."""


def next_points(
    axes: Sequence[Axis], history: Sequence[PastTrial], sampler: str, seed: int, count: int
) -> list[dict[str, Any]]:
    """The points of the next `count` trials after those of `history`, which are in their order.

    None is one of before, so that there are fewer where nearly all that there are were tried. A
    point that is chosen once more counts as a trial with the result that it has. Raises
    `ConfigError` where Optuna is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise ConfigError(
            "sweeper=optuna: Optuna is not installed here; type: pip install optuna"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spaces = {axis.key: _distribution(axis) for axis in axes}
    study = optuna.create_study()
    states = {
        "running": optuna.trial.TrialState.RUNNING,
        "complete": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    for past in history:
        study.add_trial(
            optuna.trial.create_trial(
                state=states[past.state], value=past.value, params=past.point, distributions=spaces
            )
        )
    known = {_key(past.point): past for past in history}
    points: list[dict[str, Any]] = []
    for number in range(len(history), len(history) + count + MOST_REPEATED):
        if len(points) == count:
            break
        study.sampler = _sampler(sampler, seed, number)
        asked = study.ask(spaces)
        point = dict(asked.params)
        before = known.setdefault(_key(point), PastTrial(point, "running"))
        if before.point is point:
            points.append(point)
        elif before.state == "complete":
            study.tell(asked, before.value)
        elif before.state != "running":
            study.tell(asked, state=states[before.state])
    return points


def _key(point: dict[str, Any]) -> str:
    return repr(sorted(point.items()))


def _sampler(name: str, seed: int, number: int) -> BaseSampler:
    """The sampler of trial `number`: its seed depends on nothing that a command remembers."""
    from optuna.samplers import RandomSampler, TPESampler

    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    own = int.from_bytes(digest[:4], "big")
    if name == RANDOM:
        return RandomSampler(seed=own)
    # Trials that still run count as bad ones, so that those asked together are not alike.
    return TPESampler(seed=own, constant_liar=True)


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if axis.choices:
        return CategoricalDistribution(axis.choices)
    with warnings.catch_warnings():  # that 0.30000000000000004 is no multiple of 0.2
        warnings.simplefilter("ignore", UserWarning)
        if axis.whole:
            step = 1 if axis.step is None else int(axis.step)
            return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=step)
        step_of_floats = None if axis.log else axis.step
        return FloatDistribution(axis.low, axis.high, log=axis.log, step=step_of_floats)
