"""When, and as part of what, a run is sent: keys of a training config that no spec holds.

They decide nothing that the run computes: the same work has the same digest, whenever it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from conf.errors import ConfigError
from conf.names import check_name, shown
from conf.schema import from_config

RELATIVE = re.compile(r"now(\+[0-9]{1,9}((second|minute|hour|day|week)s?)?)?")
CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?")
WORDS = ("today", "tomorrow", "midnight", "noon", "fika", "teatime")
"""Other times that sbatch takes, see https://slurm.schedmd.com/sbatch.html#OPT_begin"""


@dataclass(frozen=True)
class SendingConfig:
    """The keys `sweep`, `after` and `begin`. See `conf/train.yaml` for each key's meaning."""

    sweep: str | None = None
    after: str | None = None
    begin: str | None = None

    def __post_init__(self) -> None:
        if self.sweep is not None:
            check_name("sweep", self.sweep)
        if self.begin is not None:
            check_begin(self.begin)

    @property
    def waits_for(self) -> list[str]:
        """The words that name the runs of `after`."""
        return [word.strip() for word in (self.after or "").split(",") if word.strip()]


SENDING_KEYS = tuple(one.name for one in fields(SendingConfig))
NOT_FROZEN = (*SENDING_KEYS, "sweeper")


def sending_config(config: Mapping[str, Any]) -> SendingConfig:
    """The keys of a composed training config; raises `ConfigError` naming the key."""
    given = {key: config.get(key) for key in SENDING_KEYS}
    # A run may be called by a part of its name that is a number, and begin=1600 is one.
    words = {key: None if value is None else str(value) for key, value in given.items()}
    return from_config(SendingConfig, words, "")


def without_sending(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A plain config without these keys and without the sweeper, as it is frozen."""
    return {key: value for key, value in plain.items() if key not in NOT_FROZEN}


def check_begin(text: str) -> None:
    """Raise `ConfigError` unless `text` is a time of sbatch --begin that lies ahead."""
    if RELATIVE.fullmatch(text) or CLOCK.fullmatch(text) or text in WORDS:
        return
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"begin={shown(text)} is no time: write begin=now+2hours, begin=22:30, "
            "begin=tomorrow or begin=2026-12-24T18:00"
        ) from None
    if time.tzinfo is not None or "W" in text or len(text) not in (10, 16, 19):
        raise ConfigError(f"begin={shown(text)}: write it as in begin=2026-12-24T18:00, local time")
    if len(text) > 10 and time < datetime.now():
        raise ConfigError(f"begin={text} is in the past; leave it out to start as soon as possible")
