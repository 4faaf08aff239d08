"""The `lockgate train` command line that composes a spec's config again, from today's tree.

A spec holds values and not the words that were typed. The words are found by composing what the
task alone gives, choosing the options that come nearest, and overriding what still differs. The
result is composed once more: a command line that would not give the same config is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import ConfigError, compose, options
from conf.names import nearest
from conf.tree import groups
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.sending import without_sending
from hpc.jobs.spec.settings import flat_settings

CHOSEN = ("cluster", "model", "optim")
"""Config groups whose option a person may have chosen beside the task."""
PLAIN_WORD = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][A-Za-z0-9_./-]*", re.IGNORECASE)
"""Text that Hydra's grammar reads as itself without quotes."""


def train_words(spec: JobSpec) -> list[str]:
    """The overrides after `lockgate train` whose config is that of `spec`, its site left out.

    Raises `ConfigError` where today's tree can no longer give it.
    """
    wanted = without_sending(spec.content()["config"])
    known = options("task")
    if spec.task not in known:
        raise ConfigError(f"no task here is called {spec.task}. {nearest(spec.task, known)}")
    words, target = [f"task={spec.task}"], flat_settings(wanted)
    if odd := sorted(set(target) & set(groups())):  # as a word it would choose an option
        raise ConfigError(f"its {odd[0]} is no mapping")
    have = _settings(words, wanted)
    for group in CHOSEN:
        of_group = {key: one for key, one in target.items() if key.startswith(f"{group}.")}
        if any(have.get(key) != value for key, value in of_group.items()):
            words, have = _nearest_option(group, words, have, wanted)
    words += _overrides(have, target)
    if left := _overrides(_settings(words, wanted), target):
        raise ConfigError(f"today's configs cannot give {left[0]}")
    return words


def _nearest_option(
    group: str, words: list[str], have: dict[str, Any], wanted: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """`words` with the option of `group` that saves the most overrides, and what they compose."""
    target, trials = flat_settings(wanted), [(words, have)]
    for name in options(group):
        more = [*words, f"{group}={name}"]
        with suppress(ConfigError):  # an option that does not go with this task
            trials.append((more, _settings(more, wanted)))
    return min(trials, key=lambda trial: len(trial[0]) + len(_overrides(trial[1], target)))


def _settings(words: Sequence[str], wanted: dict[str, Any]) -> dict[str, Any]:
    """The settings that `words` compose on the site of `wanted`, every interpolation resolved.

    References to secrets that `wanted` has too stay references: their variables may be unset here.
    """
    raw = OmegaConf.to_container(compose("train", words), resolve=False)
    assert isinstance(raw, dict)  # a config is a mapping at its top
    config = without_sending({str(key): value for key, value in raw.items()})
    config["site"] = wanted.get("site", {})
    config = {key: _literal(value, wanted.get(key)) for key, value in config.items()}
    try:
        plain = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).strip().splitlines()[0]) from error
    assert isinstance(plain, dict)
    return flat_settings({str(key): value for key, value in plain.items()})


def _literal(node: Any, wanted: Any) -> Any:
    """`node` with each interpolation escaped that `wanted` has in its place, letter for letter."""
    if isinstance(node, dict) and isinstance(wanted, dict):
        return {key: _literal(value, wanted.get(key)) for key, value in node.items()}
    if isinstance(node, str) and node == wanted:
        return node.replace("${", "\\${")
    return node


def _overrides(have: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Words in Hydra's grammar that make `have` of `wanted`'s content, but for their sites."""
    changed = [
        f"{'' if key in have else '+'}{key}={hydra_value(value)}"
        for key, value in wanted.items()
        if not key.startswith("site.") and (key not in have or not _same(have[key], value))
    ]
    gone = [f"~{key}" for key in have if not key.startswith("site.") and key not in wanted]
    return changed + gone


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def hydra_value(value: object) -> str:
    """`value` in Hydra's grammar (https://hydra.cc/docs/advanced/override_grammar/basic/)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    if isinstance(value, dict):
        pairs = (f"{key}:{hydra_value(one)}" for key, one in value.items())
        return f"{{{','.join(pairs)}}}"
    text = str(value)
    if PLAIN_WORD.fullmatch(text):
        return text
    # A backslash counts only before a quote, the closing one too.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"
