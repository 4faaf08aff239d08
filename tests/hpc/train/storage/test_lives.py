"""Drawn lives of a run with a store: what it goes on from is whole and the newest there is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc.jobs.run.stored import confirmed_steps
from hpc.train import checkpoint, manifest
from hpc.train.errors import CheckpointError
from hpc.train.storage import copies
from tests.hpc.train.storage.drawn_lives import FILES, Killed, Life, content_of, damage

EVENTS = st.one_of(
    st.just(("save", 0)),
    st.just(("save", 0)),
    st.tuples(st.just("killed in the store's call"), st.integers(0, 40)),
    st.tuples(st.just("killed in the run's folder"), st.integers(0, 30)),
    st.just(("away", 0)),
    st.just(("back", 0)),
    st.just(("corrupts", 0)),
    st.just(("damaged here", 0)),
    st.just(("damaged there", 0)),
    st.just(("folder lost", 0)),
    st.just(("comes back", 0)),
)


class Countdown:
    """Kills at the n-th change of the run's folder: a file, a name, or a removal."""

    def __init__(self, left: int) -> None:
        self.left = left

    def before(self, call):
        def wrapped(*arguments, **named):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return call(*arguments, **named)

        return wrapped


def saved(life: Life) -> None:
    life.save()
    life.copy()


def killed_in_the_folder(life: Life, left: int) -> None:
    count = Countdown(left)
    with (
        patch.object(manifest, "replace_file", count.before(manifest.replace_file)),
        patch.object(checkpoint, "replace_file", count.before(checkpoint.replace_file)),
        patch.object(checkpoint.shutil, "rmtree", count.before(shutil.rmtree)),
        patch.object(copies, "write_run_file", count.before(copies.write_run_file)),
        patch.object(Path, "rename", count.before(Path.rename)),
        patch.object(Path, "unlink", count.before(Path.unlink)),
    ):
        saved(life)


def check_dropped(life: Life, here: set[int], after: set[int]) -> None:
    """Nothing goes before the store has held it, or one that is newer, whole."""
    life.ever_stored |= life.whole_stored()
    newest_stored = max(life.ever_stored, default=0)
    assert all(step <= newest_stored for step in here - after), (here, after, newest_stored)


def newest_reachable(life: Life) -> int:
    stored = set() if life.store.away else life.whole_stored()
    return max(life.whole_here() | stored, default=0)


def live(life: Life, event: str, number: int) -> None:
    here, stored = life.whole_here(), life.whole_stored()
    try:
        if event == "save":
            saved(life)
        elif event == "killed in the store's call":
            life.store.kill_after = number
            saved(life)
        elif event == "killed in the run's folder":
            killed_in_the_folder(life, number)
    except Killed:
        event = "comes back"
    life.store.kill_after = None
    check_dropped(life, here, life.whole_here())
    if event in ("away", "back", "corrupts"):
        life.store.away, life.store.corrupts = event == "away", event == "corrupts"
    elif event == "damaged here" and here:
        damage(life.folder / f"{max(here):08d}", FILES[-1])
        event = "comes back"
    elif event == "damaged there" and stored:
        damage(life.home / "store" / "life" / f"{max(stored):08d}", FILES[-1])
    elif event == "folder lost" and stored and not life.store.away:
        for one in life.folder.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
        event = "comes back"
    if event == "comes back":
        check_comeback(life)


def check_comeback(life: Life) -> None:
    best, copied = newest_reachable(life), confirmed_steps(life.folder)
    try:
        step = life.begin()
    except CheckpointError:  # never from nothing because the store is away
        assert life.store.away and best == 0 and copied
        life.store.away = False
        best = newest_reachable(life)
        step = life.begin()
    assert step == best
    for name in FILES if step else ():
        assert (life.folder / f"{step:08d}" / name).read_bytes() == content_of(step, name)


@pytest.mark.full
@settings(max_examples=400)
@given(keep=st.integers(1, 3), events=st.lists(EVENTS, min_size=2, max_size=14))
def test_many_lives(keep: int, events: list[tuple[str, int]]) -> None:
    check_life(keep, events)


@settings(max_examples=60)
@given(keep=st.integers(1, 3), events=st.lists(EVENTS, min_size=2, max_size=10))
def test_a_run_goes_on_from_the_newest_whole_checkpoint_wherever_it_lies(
    keep: int, events: list[tuple[str, int]]
) -> None:
    check_life(keep, events)


def check_life(keep: int, events: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as home, patch("os.fsync"):  # no power is cut here
        life = Life(Path(home), keep)
        for event, number in events:
            live(life, event, number)
        # The store is back: what stays is there too.
        life.store.away = life.store.corrupts = False
        for _ in range(keep):
            saved(life)
        newest = {life.step - 10 * back for back in range(keep)}
        assert life.whole_here() >= newest and life.whole_stored() >= newest
        life.save()  # what is older than the last copy goes now
        assert life.whole_here() <= newest | {life.step} | life.checkpoints.protected
