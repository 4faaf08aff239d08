"""A sweep whose values Optuna chooses: its trials so far, and the next ones ready to be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from conf import ConfigError
from conf.names import LETTERS, check_name, nearest_name
from hpc.jobs.run.states import FINISHED, NOT_SUBMITTED
from hpc.jobs.spec.axes import Axis, axes_of, point_of, words_of
from hpc.jobs.spec.names import check_config_names
from hpc.jobs.spec.sending import SendingConfig, sending_config
from hpc.jobs.spec.sweep import check_in_common, is_sweep
from hpc.jobs.spec.sweeper import SweeperConfig
from hpc.jobs.spec.trial_configs import TrialConfigs
from hpc.jobs.submit import InstalledCode, check_sizes, plan, read_installed, waiting_for
from hpc.jobs.sweep.sampler import PastTrial, next_points
from hpc.jobs.sweep.standings import SweepStandings, TrialStanding
from hpc.jobs.sweep.trials import Trial, trial_values

PARALLEL = 4
"""Trials that are in at one time where `cluster.sweep_parallel` names no number."""


@dataclass(frozen=True)
class Search:
    """The axes of a line, what all its trials have in common, and the code that they run.

    Configs and code are read once: what is edited during a search changes nothing in it.
    """

    axes: tuple[Axis, ...]
    common: tuple[str, ...]
    """The overrides that are no axis."""
    sweeper: SweeperConfig
    configs: TrialConfigs
    installed: InstalledCode = field(default_factory=read_installed)

    def trials(self, points: Sequence[Mapping[str, Any]]) -> list[Trial]:
        """The trials at these points, ready to be sent.

        Raises `ConfigError` and what `hpc.jobs.submit` raises.
        """
        if not points:
            return []
        combinations = [[*self.common, *words_of(self.axes, point)] for point in points]
        configs = [self.configs.of(words) for words in combinations]
        for config, words in zip(configs, combinations, strict=True):
            check_config_names(config, words)
        now = datetime.now(UTC)
        plans = [plan(config, now, self.installed) for config in configs]
        plans = waiting_for(plans, _sending(configs[0]))
        check_sizes(plans)
        keys = [axis.key for axis in self.axes]
        return [
            Trial(ready, trial_values(config, words, keys))
            for ready, config, words in zip(plans, configs, combinations, strict=True)
        ]

    def next(self, standings: SweepStandings, parallel: int) -> SearchStep:
        """The points to be sent now; at most `parallel` trials are in at one time.

        Trials of the sweep with other keys, or out of the ranges, count for nothing.
        """
        ours: list[tuple[PastTrial, TrialStanding]] = []
        for one in sorted(standings.trials, key=lambda one: one.number):
            point = point_of(self.axes, one.values)
            if point is not None:
                ours.append((past_trial(point, one, standings.lower_is_better), one))
        history = [past for past, _ in ours]
        unsent = [past.point for past, one in ours if _is_unsent(one)]
        going = sum(past.state == "running" for past in history)
        in_now = going - len(unsent)
        room = max(parallel - in_now, 0)
        assert self.sweeper.trials is not None
        left = max(self.sweeper.trials - len(history), 0)
        wanted = max(min(room - len(unsent), left), 0)
        asked = (
            next_points(self.axes, history, self.sweeper.sampler, self.sweeper.seed, wanted)
            if wanted
            else []
        )
        return SearchStep(
            points=[*unsent[:room], *asked],
            done=not going and not asked,
            exhausted=len(asked) < wanted,
            known=len(history),
        )


@dataclass(frozen=True)
class SearchStep:
    """The points to be sent now, and whether that was all."""

    points: list[dict[str, Any]]
    done: bool
    """True where nothing is in, and nothing is left to be sent."""
    exhausted: bool
    """True where the ranges have no other values."""
    known: int
    """Trials of before."""


def make_search(overrides: Sequence[str], sweeper: SweeperConfig) -> Search:
    """The search of a line. Raises `ConfigError` for overrides that are none."""
    check_in_common(overrides)
    common = [text for text in overrides if not is_sweep(text)]
    axes = axes_of(overrides)
    (point,) = next_points(axes, [], sweeper.sampler, sweeper.seed, 1)
    configs = TrialConfigs([*common, *words_of(axes, point)])
    return Search(tuple(axes), tuple(common), sweeper, configs)


def search_name(typed: str | None, search: Search, first: Trial) -> str:
    """The name that was typed, or one of the task, the axes and a digest of what is searched.

    The same line at the same code and data has the same name, whatever its number of trials.
    Raises `ConfigError` for no name.
    """
    if typed is not None:
        return check_name("sweep", typed)
    spec, sweeper = first.plan.spec, search.sweeper
    parts = [first.base, spec.source.digest, spec.dataset.digest, sweeper.sampler]
    parts += [f"{axis.element}={axis.words}" for axis in search.axes] + [str(sweeper.seed)]
    leaves = [axis.key.rpartition(".")[2] for axis in search.axes]
    words = nearest_name("-".join([spec.task, *leaves]), LETTERS - 8)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{words or 'sweep'}-{digest[:6]}"


def past_trial(
    point: dict[str, Any], standing: TrialStanding, lower_is_better: bool | None
) -> PastTrial:
    """A trial as Optuna has it: one that finished without the metric has failed."""
    state, value = standing.state, standing.value
    if _is_unsent(standing) or (state is not None and not state.over):
        return PastTrial(point, "running")
    if standing.stopped_early:
        return PastTrial(point, "pruned")
    if standing.state_word == FINISHED and value is not None:
        return PastTrial(point, "complete", -value if lower_is_better is False else value)
    return PastTrial(point, "failed")


def _is_unsent(standing: TrialStanding) -> bool:
    return standing.state_word == NOT_SUBMITTED


def _sending(config: Any) -> SendingConfig:
    sending = sending_config(config)
    if sending.begin is not None:
        raise ConfigError(
            f"begin={sending.begin}: Optuna chooses a trial when another one has ended, so that "
            "each would wait anew. Leave it out, or wait for a run with after=RUN"
        )
    return sending
