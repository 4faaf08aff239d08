"""Freeze windows: times in which nobody deploys, by a wall clock somewhere.

Only a deployment is refused: going back and healing are never out of hours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from conf.names import shown

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MIDNIGHT = "24:00"
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2})")


@dataclass(frozen=True)
class FreezeWindow:
    """From `start` to `end` by the wall clock of `zone`, on each of `days`.

    A window whose `end` is not after its `start` ends on the next day. What counts is the clock
    on the wall: where it is set back, the hour that comes twice is in a window both times.
    """

    days: tuple[str, ...]
    """Days that it begins on: mon to sun, or dates such as 2026-12-24."""
    start: str
    """HH:MM."""
    end: str
    """HH:MM, up to 24:00."""
    zone: str
    """Time zone of its clock, such as America/New_York."""
    reason: str
    """For the person who is refused."""

    def __post_init__(self) -> None:
        if not self.days:
            raise ValueError("days: at least one of mon to sun, or a date")
        for day in self.days:
            _check_day(day)
        _clock(self.start, "start")
        if self.end != _MIDNIGHT:
            _clock(self.end, "end")
        _zone(self.zone)
        if not self.reason.strip():
            raise ValueError("reason: the next person wants to know why")

    def until(self, now: datetime) -> datetime | None:
        """The end, by the window's own clock, of the time that `now` lies in; None outside.

        `now` is an instant, with its time zone.
        """
        wall = now.astimezone(_zone(self.zone)).replace(tzinfo=None)
        for begun in (wall.date(), wall.date() - timedelta(days=1)):
            if not self._begins_on(begun):
                continue
            start = datetime.combine(begun, _clock(self.start, "start"))
            if self.end == _MIDNIGHT:
                end = datetime.combine(begun + timedelta(days=1), time())
            else:
                end = datetime.combine(begun, _clock(self.end, "end"))
                end += timedelta(days=0 if end > start else 1)
            if start <= wall < end:
                return end
        return None

    def _begins_on(self, day: date) -> bool:
        return WEEKDAYS[day.weekday()] in self.days or day.isoformat() in self.days


def frozen(windows: Iterable[FreezeWindow], now: datetime) -> str:
    """A sentence for who wants to deploy at `now` (with its time zone); empty outside of all."""
    for window in windows:
        end = window.until(now)
        if end is not None:
            return (
                f"deployments are frozen until {end:%a %Y-%m-%d %H:%M} ({window.zone}): "
                f"{window.reason.rstrip('.')}. fab rollback and fab heal go on; to deploy all the "
                "same: fab deploy --set rollout.freeze=[]"
            )
    return ""


def _check_day(day: str) -> None:
    if day in WEEKDAYS:
        return
    try:
        if date.fromisoformat(day).isoformat() == day:
            return
    except ValueError:
        pass
    raise ValueError(
        f"days: {shown(day)} is neither one of {', '.join(WEEKDAYS)} nor a date such as 2026-12-24"
    )


def _clock(text: str, key: str) -> time:
    found = _CLOCK.fullmatch(text)
    try:
        if found:
            return time(int(found[1]), int(found[2]))
    except ValueError:
        pass
    raise ValueError(f'{key}: {shown(text)} is no time of day; write it in quotes, as "09:30"')


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"zone: {shown(name)} is no time zone that this machine knows, such as "
            "America/New_York or UTC"
        ) from error
