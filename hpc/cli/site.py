"""The site of a verb: `site=NAME` and other overrides of conf/site.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf import ConfigError, compose
from conf.names import RUN_LETTERS, check_name


def runs_folder(overrides: Sequence[str]) -> Path:
    """The folder of all runs of a site; raises `conf.ConfigError`."""
    return Path(compose("site", list(overrides)).site.paths.runs)


def run_word(words: Sequence[str], verb: str) -> tuple[str, list[str]]:
    """Split `RUN [key=value ...]`, in any order, into the run's name and the overrides.

    `run=RUN` names the run too, as `lockgate release run=RUN` does. Raises `ConfigError` for a word
    that no run can have in its name, with what to type after `lockgate <verb>`.
    """
    names, overrides = run_words(words, verb)
    if len(names) != 1:
        raise ConfigError("name one run; `lockgate ls` lists them, and `last` is the newest")
    return names[0], overrides


def run_words(words: Sequence[str], verb: str) -> tuple[list[str], list[str]]:
    """Split `RUN [RUN ...] [key=value ...]` as `run_word` does; the names may be none."""
    names = [word.removeprefix("run=") for word in words if "=" not in word or word[:4] == "run="]
    checked = [
        check_name("run", name, f"lockgate {verb} {{}}", RUN_LETTERS) for name in names if name
    ]
    return checked, [word for word in words if "=" in word and word[:4] != "run="]
