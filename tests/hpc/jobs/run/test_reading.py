"""Lists of many runs: ended runs are remembered by their files' stats, and nothing else is."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpc.jobs.queue import run_states
from hpc.jobs.run import reading
from hpc.jobs.run.files import CancelFile, JobFile, StatusFile, read_run_file, write_run_file
from hpc.jobs.run.folder import Run, all_runs
from tests.hpc.report.written_runs import write_run

OPENED: list[Path] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if (
        event == "open"
        and OPENED is not None
        and isinstance(arguments[0], str | bytes | os.PathLike)
    ):
        OPENED.append(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_audit)


@pytest.fixture()
def opened() -> Iterator[list[Path]]:
    global OPENED
    OPENED = []
    yield OPENED
    OPENED = None


@pytest.fixture()
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "FEW", 0)
    monkeypatch.setattr(reading, "RACE_S", -1e6)  # as if all had rested
    folder = tmp_path / "runs"
    for number, state in enumerate(("finished", "failed", "stopped", "running")):
        write_run(folder, f"t-20260101-00000{number}-aaaaaa", state=state)
    return folder


def name(number: int) -> str:
    return f"t-20260101-00000{number}-aaaaaa"


def within(opened: list[Path], runs: Path) -> dict[str, int]:
    """The number of opens in each run's folder."""
    counts: dict[str, int] = {}
    for path in opened:
        if path.is_relative_to(runs) and path != runs:
            run = path.relative_to(runs).parts[0]
            counts[run] = counts.get(run, 0) + 1
    return counts


def test_a_second_list_opens_no_file_of_a_run_that_ended(runs, opened):
    first = run_states(all_runs(runs))
    assert set(within(opened, runs)) == {name(number) for number in range(4)}
    opened.clear()
    assert run_states(all_runs(runs)) == first
    assert set(within(opened, runs)) == {name(3)}  # the one that runs
    assert [one.state for one in first] == ["finished", "failed", "stopped", "failed"]


def test_a_list_of_few_reads_a_bounded_number_of_files_and_no_memory(runs, opened, monkeypatch):
    monkeypatch.setattr(reading, "FEW", 4)
    run_states(all_runs(runs))
    assert max(within(opened, runs).values()) <= len(reading.FILES)
    assert not (runs.parent / "cache").exists()


def step_on(run: Run) -> None:
    with run.metrics.open("a") as file:
        file.write('{"step": 401, "loss": 7.5}\n')


def end_differently(run: Run) -> None:
    status = read_run_file(StatusFile, run.status).value
    write_run_file(run.status, StatusFile("running", 9, started=status.started))


def break_spec(run: Run) -> None:
    run.spec_path.unlink()
    run.spec_path.write_text("x")


def cancel(run: Run) -> None:
    write_run_file(run.cancelled, CancelFile(by="me", at="2026-01-01T00:00:00+00:00"))


def lose_job(run: Run) -> None:
    run.job.unlink()


def other_job(run: Run) -> None:
    write_run_file(run.job, JobFile("local", "5", "2026-01-01T00:00:00+00:00", "you", 1))


@pytest.mark.parametrize(
    "change", [step_on, end_differently, break_spec, cancel, lose_job, other_job]
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_was_touched_is_read_again(runs, monkeypatch, change, number):
    before = run_states(all_runs(runs))
    change(Run(runs / name(number)))
    found = run_states(all_runs(runs))
    monkeypatch.setattr(reading, "FEW", 99)
    assert found == run_states(all_runs(runs))
    assert (found == before) == (change is cancel and number == 0)  # it had finished


def cache_of(runs: Path) -> Path:
    (path,) = (runs.parent / "cache" / "lockgate").iterdir()
    return path


def test_what_runs_or_is_broken_or_was_written_just_now_is_not_remembered(runs, monkeypatch):
    break_spec(Run(runs / name(1)))
    run_states(all_runs(runs))
    assert set(json.loads(cache_of(runs).read_text())["runs"]) == {name(0), name(2)}
    cache_of(runs).unlink()
    monkeypatch.setattr(reading, "RACE_S", 2.0)
    run_states(all_runs(runs))
    assert list((runs.parent / "cache" / "lockgate").iterdir()) == []


def test_the_memory_is_the_users_own_and_forgets_runs_that_are_gone(runs):
    run_states(all_runs(runs))
    assert cache_of(runs).stat().st_mode & 0o777 == 0o600
    (runs / name(0)).rename(runs.parent / "elsewhere")
    write_run(runs, name(5))
    run_states(all_runs(runs))
    kept = set(json.loads(cache_of(runs).read_text())["runs"])
    assert kept == {name(1), name(2), name(5)}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: "[" * 100_000,
        lambda text: "[1]",
        lambda text: text.replace('"format":"', '"format":"f'),
        lambda text: text.replace('"job":', '"jobs":'),
        lambda text: text.replace('"user":"train"', '"user":"--all"'),
        lambda text: text.replace('"cancelled":', '"canceled":'),
        lambda text: text.replace(":[[", ":[3,["),
    ],
)
def test_a_memory_of_another_shape_is_none(runs, damage):
    before = run_states(all_runs(runs))
    path = cache_of(runs)
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    assert run_states(all_runs(runs)) == before


def test_without_a_place_for_it_the_runs_are_read(runs, monkeypatch):
    (runs.parent / "cache").write_text("no folder")
    assert len(run_states(all_runs(runs))) == 4
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert len(run_states(all_runs(runs))) == 4
