"""The site of a verb: `site=NAME` and other overrides of conf/site.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from conf import compose
from conf.names import RUN_LETTERS, check_name


def runs_folder(overrides: Sequence[str]) -> Path:
    """The folder of all runs of a site; raises `conf.ConfigError`."""
    return Path(compose("site", list(overrides)).site.paths.runs)


def run_word(words: Sequence[str], verb: str) -> tuple[str, list[str]]:
    """Split `RUN [key=value ...]`, in any order, into the run's name and the overrides.

    `run=RUN` names the run too, as `lockgate release run=RUN` does. Raises `ConfigError` for a word
    that no run can have in its name, with what to type after `lockgate <verb>`.
    """
    from conf import ConfigError

    names = [word.removeprefix("run=") for word in words if "=" not in word or word[:4] == "run="]
    if len(names) != 1 or not names[0]:
        raise ConfigError("name one run; `lockgate ls` lists them, and `last` is the newest")
    word = check_name("run", names[0], f"lockgate {verb} {{}}", RUN_LETTERS)
    return word, [word for word in words if "=" in word and word[:4] != "run="]
