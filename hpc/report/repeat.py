"""The command that submits a run's config again, found by comparing it with today's configs.

A spec holds values and not the line that was typed: the line here is one that composes to the same
config, checked by composing it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from conf import ConfigError, compose, options
from hpc.jobs.spec.resolve import resolve
from hpc.report.reported_run import ReportedRun, flat_config

GROUPS = ("cluster", "model", "optim")
MOST_OVERRIDES = 60
Composer = Callable[[tuple[str, ...], tuple[str, ...]], dict[str, object]]
"""The config by dotted key of some overrides and the names of the variables that are secrets."""
PLAIN_WORDS = ("true", "false", "null", "nan", "inf")


def repeat_commands(runs: Sequence[ReportedRun]) -> dict[str, str]:
    """A line for a shell by the run's name; without a run whose config no line of today gives."""
    composed = cache(_composed)  # a choice is composed once for all runs
    lines = {run.name: _repeat_command(run, composed) for run in runs}
    return {name: line for name, line in lines.items() if line is not None}


def _repeat_command(run: ReportedRun, composed: Composer) -> str | None:
    if run.spec is None or run.spec.task not in options("task"):
        return None
    passed = run.config.get("cluster.pass_environment")
    names = tuple(map(str, passed)) if isinstance(passed, list) else ()
    chosen: tuple[str, ...] = (f"task={run.spec.task}",)
    try:
        for group in GROUPS:
            if _difference(composed(chosen, names), run.config, group):
                chosen = _nearest_choice(group, chosen, run.config, names, composed)
        overrides = changes(composed(chosen, names), run.config)
        if len(overrides) > MOST_OVERRIDES:
            return None
        if _composed((*chosen, *overrides), names) != run.config:
            return None
    except ConfigError:
        return None
    return shlex.join(["lockgate", "train", *chosen, *overrides])


def changes(known: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Overrides in Hydra's grammar that make `wanted` of `known`, both by dotted key.

    An empty mapping is a leaf: it comes and goes with the keys below it.
    """
    removed = [f"~{key}" for key in known if key not in wanted and not _below(key, wanted)]
    return removed + [
        f"{'' if key in known else '+'}{key}={hydra_value(value)}"
        for key, value in wanted.items()
        if (key not in known or known[key] != value) and not _below(key, known)
    ]


def _below(key: str, config: Mapping[str, object]) -> bool:
    return any(other.startswith(f"{key}.") for other in config)


def hydra_value(value: object) -> str:
    """`value` in Hydra's grammar. https://hydra.cc/docs/advanced/override_grammar/basic/"""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, Mapping):
        inside = (f"{hydra_value(str(key))}:{hydra_value(one)}" for key, one in value.items())
        return f"{{{','.join(inside)}}}"
    text = str(value)
    if text.replace("_", "").replace(".", "a").isalnum() and text[0].isalpha() and text.isascii():
        return text if text.lower() not in PLAIN_WORDS else f"'{text}'"
    quoted = text.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{quoted}\\'" if quoted.endswith("\\") else f"'{quoted}'"


def _nearest_choice(
    group: str,
    chosen: tuple[str, ...],
    wanted: Mapping[str, object],
    passed: tuple[str, ...],
    composed: Composer,
) -> tuple[str, ...]:
    """`chosen` with the option of `group` that leaves the fewest keys to override."""
    best, left = chosen, _difference(composed(chosen, passed), wanted, group)
    for option in options(group):
        trial = (*chosen, f"{group}={option}")
        try:
            difference = _difference(composed(trial, passed), wanted, group)
        except ConfigError:
            continue
        if difference < left:
            best, left = trial, difference
    return best


def _difference(known: Mapping[str, object], wanted: Mapping[str, object], group: str) -> int:
    keys = {key for key in (*known, *wanted) if key.startswith(f"{group}.")}
    return sum(known.get(key, group) != wanted.get(key, group) for key in keys)


def _composed(overrides: tuple[str, ...], passed: tuple[str, ...]) -> dict[str, object]:
    return flat_config(resolve(compose("train", overrides), passed))
