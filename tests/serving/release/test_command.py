"""The command line of a release, the settings behind it and the table it prints."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from conf import ConfigError
from serving.artifact.manifest import GateRecord
from serving.release import command, report
from serving.release.report import Report
from serving.release.settings import FlightsGates, LmGates

from . import tiny


def test_both_sets_of_gates_compose_and_are_what_their_schema_says(tmp_path: Path) -> None:
    flights = tiny.make_settings(tmp_path, "r").gates
    text = tiny.make_settings(tmp_path, "r", gates="lm").gates
    assert isinstance(flights, FlightsGates) and isinstance(text, LmGates)
    assert (text.gzip.required, text.xz.required) == (True, False)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("gates.golden.requird=false", "gates.golden.required"),
        ("gates.golden.min_examples=many", "gates.golden.min_examples is 'many', not of type int"),
        ("gates.latency.rounds=0", "latency.rounds"),
        ("gates.latency.low.clients=9", "latency.high.clients must be at least"),
        ("gates.task=poetry", "there are flights, lm"),
        ("throwaway.start_timeout_s=soon", "throwaway.start_timeout_s is 'soon'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        tiny.make_settings(tmp_path, "r", override)
    assert said in str(error.value)


def test_the_gates_are_those_of_the_runs_task(
    tmp_path: Path, dataset_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_candidate(tmp_path / "runs", dataset_template, run="texts", task="lm")
    site = f"site.root={tmp_path}"
    wanted = ["run=texts", site, "gates.xz.required=true", "--cfg", "job"]
    assert command.main(wanted) == 0
    assert "chunk_bytes" in capsys.readouterr().out
    assert command.main(["run=texts", site, "gates=flights"]) == 1
    assert "is of task lm; gates=flights are not its" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], 2, "say which run to release"),
        (["run=nope"], 1, "there is no run"),
        (["rnu=nope"], 2, "Nearest: run"),
        (["gates=flihgts", "run=x"], 2, "Nearest: flights"),
    ],
)
def test_a_slip_is_one_sentence_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: int, said: str
) -> None:
    (tmp_path / "runs").mkdir()
    assert command.main([f"site.root={tmp_path}", *argv]) == code
    said_then = capsys.readouterr().err
    assert said in said_then and said_then.startswith("lockgate: ")
    assert "Traceback" not in said_then and len(said_then.splitlines()) == 1


GATES = (
    GateRecord("golden.equal", "pass", True, 0.0, 0.0, "8 equal"),
    GateRecord("latency.p99.c8", "fail", True, 250.0, 200.0, "ms"),
    GateRecord("bits.vs_xz", "fail", False, 2.4, 2.18, "bits per byte"),
    GateRecord("production.auc", "unknown", True, None, None, "AskError: no [answer]"),
)


def a_report(**changes: object) -> Report:
    content = {
        "outcome": "refused", "model": "flights", "version": None, "run": "r", "digest": None,
        "production": 1, "started": "2026-01-02T03:04:05Z", "seconds": 1.0, "gates": GATES,
    }  # fmt: skip
    return Report(**{**content, **changes})  # type: ignore[arg-type]


def shown(one: Report) -> str:
    out = io.StringIO()
    report.show(one, Console(file=out, width=140))
    return out.getvalue()


def test_a_refusal_shows_what_failed_and_by_how_much_and_nothing_else() -> None:
    text = shown(a_report())
    assert "2 of 4 gates failed" in text and "nothing was registered" in text
    (row,) = [line for line in text.splitlines() if "latency.p99.c8" in line]
    assert row.split() == ["latency.p99.c8", "fail", "250", "200", "50", "ms"]
    assert "AskError: no [answer]" in text
    assert "bits.vs_xz" not in text and "golden.equal" not in text


def test_a_release_says_what_to_do_next() -> None:
    done = a_report(outcome="released", version=2, digest="ab" * 32, gates=GATES[:1])
    assert "flights/2 sha256:abababababab of r is released" in shown(done)
    assert "Next: fab plan" in shown(done)
    assert (done.exit_code, a_report().exit_code) == (0, 3)


def test_a_report_is_kept_whole_and_under_a_name_of_its_own(tmp_path: Path) -> None:
    one = report.keep(a_report(), tmp_path)
    two = report.keep(a_report(started="2026-01-02T03:04:06Z"), tmp_path)
    assert one != two and sorted(one.parent.iterdir()) == sorted([one, two])
    assert json.loads(one.read_text())["gates"][1]["value"] == 250.0


def test_a_line_of_progress_holds_verdict_name_numbers_and_reason() -> None:
    lines = [report.line(record) for record in GATES]
    assert lines[1].split() == ["fail", "latency.p99.c8", "250", "[200]", "ms"]
    assert lines[2].startswith("(fail)")
