"""The command line of a release, the settings behind it and the table it prints."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from serving.artifact.manifest import GateRecord
from serving.registry import PublishedNotRegistered, RegistryError
from serving.release import command, pipeline, report
from serving.release.report import ReleaseReport

from . import tiny


def test_the_gates_are_those_of_the_runs_task(
    tmp_path: Path, dataset_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_candidate(tmp_path / "runs", dataset_template, run="texts", task="lm")
    site = f"site.root={tmp_path}"
    wanted = ["run=texts", site, "gates.bits.vs_xz.required=true", "--cfg", "job"]
    assert command.main(wanted) == 0
    assert "chunk_bytes" in capsys.readouterr().out
    assert command.main(["run=texts", site, "gates=flights", "--cfg", "job"]) == 0
    assert "chunk_bytes" not in capsys.readouterr().out


def test_a_task_without_gates_is_answered_with_the_nearest(
    tmp_path: Path, dataset_template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.write_candidate(tmp_path / "runs", dataset_template, run="poems", task="flihgts")
    assert command.main(["run=poems", f"site.root={tmp_path}"]) == 2
    text = capsys.readouterr().err
    assert "there is no conf/gates/flihgts.yaml. Nearest: flights" in text and "gates=NAME" in text


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ([], 2, "say which run to release"),
        (["run=nope"], 2, "there is no run"),
        (["rnu=nope"], 2, "Nearest: run"),
        (["gates=flihgts", "run=x"], 2, "Nearest: flights"),
        (["gates=flights", "run=x", "valid_days=0"], 2, "valid_days=0: must be between 1 and"),
        (["gates=flights", "run=x", "valid_days=soon"], 2, "valid_days is 'soon'"),
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


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            PublishedNotRegistered("flights", 2, RegistryError("MLflow is down.")),
            3,
            "lockgate: flights/2 is published in the store, but not registered: MLflow is down.",
        ),
        (RegistryError("MLflow is down"), 5, "lockgate: nothing was released: MLflow is down"),
        (OSError("disk full"), 1, "lockgate: nothing was released: disk full"),
    ],
)
def test_what_ends_a_release_is_said_truly_and_has_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: Exception, code: int, said: str,
) -> None:  # fmt: skip
    def fail(*arguments: object) -> ReleaseReport:
        raise error

    monkeypatch.setattr(pipeline, "release_candidate", fail)
    assert command.main(["run=r", "gates=flights", f"site.root={tmp_path}"]) == code
    text = capsys.readouterr().err
    assert text.startswith(said)
    assert ("nothing was released" in text) == (code != 3)


GATES = (
    GateRecord("golden.equal", "pass", True, 0.0, 0.0, "8 equal"),
    GateRecord("latency.p99.c8", "fail", True, 250.0, 200.0, "ms"),
    GateRecord("bits.vs_xz", "fail", False, 2.4, 2.18, "bits per byte"),
    GateRecord("production.auc", "unknown", True, None, None, "InferError: no [answer]"),
)


def a_report(**changes: object) -> ReleaseReport:
    content = {
        "outcome": "refused", "model": "flights", "version": None, "run": "r", "digest": None,
        "production": 1, "started": "2026-01-02T03:04:05Z", "seconds": 1.0, "gates": GATES,
    }  # fmt: skip
    return ReleaseReport(**{**content, **changes})  # type: ignore[arg-type]


def shown(one: ReleaseReport) -> str:
    out = io.StringIO()
    report.print_report(one, Console(file=out, width=140))
    return out.getvalue()


def test_a_refusal_shows_what_failed_and_by_how_much_and_nothing_else() -> None:
    text = shown(a_report())
    assert "2 of 4 gates failed" in text and "nothing was registered" in text
    (row,) = [line for line in text.splitlines() if "latency.p99.c8" in line]
    assert row.split() == ["latency.p99.c8", "fail", "250", "200", "50", "ms"]
    assert "InferError: no [answer]" in text
    assert "bits.vs_xz" not in text and "golden.equal" not in text


def test_a_release_says_what_to_do_next() -> None:
    done = a_report(outcome="released", version=2, digest="ab" * 32, gates=GATES[:1])
    assert "flights/2 sha256:abababababab of r is released" in shown(done)
    assert "Next: fab plan" in shown(done)
    assert (done.exit_code, a_report().exit_code) == (0, 4)


def test_a_report_is_kept_whole_and_under_a_name_of_its_own(tmp_path: Path) -> None:
    one = report.keep_report(a_report(), tmp_path)
    two = report.keep_report(a_report(started="2026-01-02T03:04:06Z"), tmp_path)
    assert one != two and sorted(one.parent.iterdir()) == sorted([one, two])
    assert json.loads(one.read_text())["gates"][1]["value"] == 250.0


def test_a_line_of_progress_holds_verdict_name_numbers_and_reason() -> None:
    lines = [report.progress_line(record) for record in GATES]
    assert lines[1].split() == ["fail", "latency.p99.c8", "250", "[200]", "ms"]
    assert lines[2].startswith("(fail)")
