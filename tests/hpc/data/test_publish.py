"""A dataset is published whole or not at all, and never twice."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.data import lineage
from hpc.data.prepare import prepare
from hpc.data.publish import STAGING, Published
from hpc.data.refusal import DataRefused
from serving.artifact import durable
from tests.datasets import flights_config, quiet, webster_config

REPO = Path(__file__).resolve().parents[3]


def names(home: Path) -> set[str]:
    return {path.name for path in home.iterdir()}


def test_second_time_nothing_happens(flights_source: Path, tmp_path: Path) -> None:
    first = prepare(flights_config(flights_source), tmp_path, quiet)
    before = (first.path / "lineage.json").read_text()
    again = prepare(flights_config(flights_source), tmp_path, quiet)
    assert (first.state, again.state) == ("published", "unchanged")
    assert again.path == first.path
    assert (first.path / "lineage.json").read_text() == before


def test_another_recipe_with_the_same_result_is_unchanged_too(
    flights_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(flights_config(flights_source), tmp_path, quiet)
    monkeypatch.setattr("hpc.data.prepare.recipe_digest", lambda config, sources: "other")
    assert prepare(flights_config(flights_source), tmp_path, quiet).state == "unchanged"


def test_current_moves_forth_and_back(flights_source: Path, tmp_path: Path) -> None:
    one = prepare(flights_config(flights_source), tmp_path, quiet)
    two = prepare(flights_config(flights_source, seed=7), tmp_path, quiet)
    assert one.path != two.path and lineage.current_dataset(tmp_path, "flights") == two.path
    back = prepare(flights_config(flights_source), tmp_path, quiet)
    assert (back.state, lineage.current_dataset(tmp_path, "flights")) == ("published", one.path)
    assert names(tmp_path / "flights") == {".lock", "current", one.path.name, two.path.name}


def test_published_files_are_read_only(flights: Published) -> None:
    modes = {path.stat().st_mode & 0o222 for path in [flights.path, *flights.path.iterdir()]}
    assert modes == {0}


def test_a_damaged_dataset_is_found_and_made_again(flights_source: Path, tmp_path: Path) -> None:
    first = prepare(flights_config(flights_source), tmp_path, quiet)
    victim = first.path / "holdout.parquet"
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(DataRefused, match="its files were changed"):
        lineage.verify_dataset(first.path)
    again = prepare(flights_config(flights_source), tmp_path, quiet)
    assert (again.state, again.path) == ("published", first.path)
    lineage.verify_dataset(again.path)
    assert names(tmp_path / "flights") == {".lock", "current", first.path.name}


def test_no_dataset_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="lockgate data prepare data=flights"):
        lineage.current_dataset(tmp_path, "flights")


def test_two_at_once_are_refused(flights_source: Path, tmp_path: Path) -> None:
    (tmp_path / "flights").mkdir()
    with (tmp_path / "flights" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataRefused, match="another `lockgate data prepare"):
            prepare(flights_config(flights_source), tmp_path, quiet)


def test_a_crash_while_publishing_leaves_the_old_one(
    flights_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = prepare(flights_config(flights_source), tmp_path, quiet)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync_path", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(flights_config(flights_source, seed=7), tmp_path, quiet)
    assert lineage.current_dataset(tmp_path, "flights") == old.path
    assert names(tmp_path / "flights") == {".lock", "current", old.path.name}


INTERRUPTED = """
import os, sys
from pathlib import Path
from hpc.data.prepare import prepare
from serving.artifact import durable
from tests.datasets import webster_config

def die(line):
    if line.startswith("train:"):
        os.kill(os.getpid(), int(sys.argv[3]))

prepare(webster_config(Path(sys.argv[1])), Path(sys.argv[2]), die)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_in_the_middle(
    number: int, webster_source: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(webster_source), str(tmp_path), str(number)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -number
    left = {name for name in names(tmp_path / "webster") if name.startswith(STAGING)}
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    made = prepare(webster_config(webster_source), tmp_path, quiet)
    assert names(tmp_path / "webster") == {".lock", "current", made.path.name}
