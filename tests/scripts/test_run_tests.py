"""The runner of `scripts/test`, on stages of its own: choice, counts, second tries, the summary."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from conf import ConfigError
from scripts import run_tests, stages
from scripts.run_tests import StageResult, main, print_summary, run_stage, run_stages
from scripts.stages import STAGES, Stage, choose_stages

TESTS = """
import time
from pathlib import Path

import pytest

def test_quick():
    pass

def test_long():
    time.sleep(0.3)

def test_elsewhere():
    pytest.skip("no such daemon here")

@pytest.mark.full
def test_wide():
    pass
"""

FLAKY = """
from pathlib import Path

def test_good():
    pass

def test_good_at_the_second_try():
    seen = Path(__file__).with_name("seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    for module in (stages, run_tests):
        monkeypatch.setattr(module, "REPORTS", folder)
    return folder


def pytest_stage(tmp_path: Path, text: str, name: str = "fake", **options: object) -> Stage:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "test_it.py").write_text(text)
    return Stage(name, marker="not slow", folder=str(folder), **options)  # type: ignore[arg-type]


def script(name: str, code: str, **options: object) -> Stage:
    return Stage(name, argv=(sys.executable, "-c", code), **options)  # type: ignore[arg-type]


def summary(*results: StageResult) -> str:
    out = io.StringIO()
    print_summary(results, Console(file=out, width=160), 60.0)
    return out.getvalue()


def test_tests_are_counted_timed_and_skips_have_a_reason(tmp_path: Path) -> None:
    result = run_stage(pytest_stage(tmp_path, TESTS), captured=True)
    assert result.exit_code == 0
    assert result.counts == {"passed": 2, "skipped": 1}
    shown = summary(result)
    assert "skipped 1: no such daemon here" in shown
    slowest = [line for line in shown.splitlines() if " s  fake: " in line]
    assert slowest[0].endswith("test_long") and len(slowest) == 3
    assert "2 passed, 0 failed, 1 skipped in 1.0 min" in shown


def test_wide_runs_are_left_out_unless_full(tmp_path: Path) -> None:
    stage = pytest_stage(tmp_path, TESTS)
    (wide,) = choose_stages([stage], full=True)
    assert run_stage(wide, captured=True).counts["passed"] == 3


def test_what_fails_once_is_run_again_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_stage(pytest_stage(tmp_path, FLAKY, again=True), captured=True)
    assert not result.failed
    assert result.counts == {"passed": 2}
    assert "fake: 1 failed; once more" in capsys.readouterr().out
    assert "second try: fake: " in summary(result)


def test_what_fails_fails_where_there_is_no_second_try(tmp_path: Path) -> None:
    result = run_stage(pytest_stage(tmp_path, FLAKY), captured=True)
    assert result.failed and result.counts == {"passed": 1, "failed": 1}
    shown = summary(result)
    assert "failed stages: fake" in shown and "1 passed, 1 failed, 0 skipped" in shown


def test_what_fails_twice_fails(tmp_path: Path) -> None:
    result = run_stage(pytest_stage(tmp_path, "def test_it():\n  assert 0", again=True), True)
    assert result.failed and result.counts == {"failed": 1}


@pytest.mark.parametrize(
    "text", ["import os\nos._exit(0)", "def broken(", "import os\nos._exit(3)"]
)
def test_a_stage_that_leaves_no_test_behind_failed(tmp_path: Path, text: str) -> None:
    result = run_stage(pytest_stage(tmp_path, text), captured=True)
    assert result.failed and result.counts["failed"] == 1


def test_a_linter_counts_as_one() -> None:
    good, bad = script("good", "pass"), script("bad", "raise SystemExit(2)")
    assert run_stage(good, captured=True).counts == {"passed": 1}
    assert run_stage(bad, captured=True).counts == {"failed": 1}


def test_stages_run_side_by_side_and_their_output_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each waits for the other: one after the other they would not come to an end.
    meet = (
        "import sys, time; from pathlib import Path; here, there = map(Path, {!r}); here.touch()\n"
        "print('{name} begins', flush=True)\n"
        "while not there.exists(): time.sleep(0.01)\n"
        "print('{name} ends')"
    )
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    pair = [script("a", meet.format([a, b], name="a")), script("b", meet.format([b, a], name="b"))]
    results = list(run_stages(pair, parallel=2))
    assert {result.stage.name for result in results} == {"a", "b"}
    printed = capsys.readouterr().out
    for name in "ab":
        assert f"== {name}\n{name} begins\n{name} ends\n== {name}: exit 0" in printed


def test_nothing_runs_beside_a_stage_that_is_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def logged(name: str, **options: object) -> Stage:
        code = (
            "import time; from pathlib import Path\n"
            f"with Path({str(log)!r}).open('a') as log:\n"
            f"    print('{name} begins', file=log, flush=True); time.sleep(0.1)\n"
            f"    print('{name} ends', file=log, flush=True)"
        )
        return script(name, code, **options)

    chosen = [logged("a"), logged("b"), logged("site", alone=True), logged("more", alone=True)]
    started = time.monotonic()
    assert len(list(run_stages(chosen, parallel=2))) == 4
    assert time.monotonic() - started < 30
    assert log.read_text().splitlines()[4:] == [
        "site begins", "site ends", "more begins", "more ends",
    ]  # fmt: skip


def names(*only: str, **options: bool) -> list[str]:
    return [stage.name for stage in choose_stages(STAGES, only, **options)]


def test_all_stages_run_and_those_of_the_site_are_alone() -> None:
    assert names() == [stage.name for stage in STAGES]
    assert names(fast=True) == ["ruff", "format", "types", "imports", "unit"]
    alone = {stage.name for stage in STAGES if stage.alone}
    assert alone == {"triton", "quickstart", "site"}


def test_only_takes_stages_folders_and_both() -> None:
    assert names("unit", "types") == ["types", "unit"]
    assert names("serving/artifact") == ["slow", "unit", "triton", "site"]
    (unit,) = choose_stages(STAGES, ["unit", "serving/artifact", "tests/hpc/data"])
    assert unit.paths == ("tests/serving/artifact", "tests/hpc/data")
    assert unit.command()[-2:] == ["tests/serving/artifact", "tests/hpc/data"]
    assert "kernels-compile" in names("kernels") and "quickstart" not in names("kernels")
    assert names("tests/site/test_quickstart.py") == ["slow", "unit", "triton", "quickstart"]
    (ports,) = choose_stages(STAGES, ["unit", "scripts/run_tests.py"])
    assert ports.paths == ("tests/scripts/test_run_tests.py",)


def test_an_unknown_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="tests/serving/artifact"):
        choose_stages(STAGES, ["serving/artefact"])
    with pytest.raises(SystemExit) as stopped:
        main(["--only", "kernels-compil"])
    assert stopped.value.code == 2
    assert "Nearest: kernels-compile" in capsys.readouterr().err


def test_by_default_no_stage_runs_what_is_marked_full() -> None:
    for stage in choose_stages(STAGES):
        if stage.is_pytest:
            assert stage.command()[stage.command().index("-m", 2) + 1].endswith(" and not full")
    for stage in choose_stages(STAGES, full=True):
        assert not any("not full" in word for word in stage.command())


def test_the_exit_code_is_that_of_the_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = pytest_stage(tmp_path, "def test_it(): pass", "good")
    bad = script("bad", "raise SystemExit(1)", alone=True)
    assert main([], [good]) == 0
    assert main([], [good, bad]) == 1
    assert "1 passed, 1 failed, 0 skipped" in capsys.readouterr().out
    nothing = pytest_stage(tmp_path, "", "nothing")
    assert main([], [nothing]) == 1
