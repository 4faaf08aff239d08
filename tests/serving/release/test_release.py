"""Whole releases of tiny packages: real tritonservers, a real MLflow, real keys."""

import json
import os
import pwd
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from serving.artifact import manifest, store
from serving.artifact.digest import file_sha256
from serving.artifact.verify import parse_time, verify_package
from serving.registry import (
    CANDIDATE,
    PRODUCTION,
    PublishedNotRegistered,
    Registry,
    RegistryError,
)
from serving.release import pipeline
from serving.release.lock import ReleaseLocked, release_lock
from serving.release.pipeline import ReleaseError
from serving.release.report import ReleaseReport
from tests.confined import USER

from . import tiny

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("triton_env", "mlflow_db")]

REPO = tiny.REPO


@pytest.fixture
def release(site: Path) -> Callable[..., ReleaseReport]:
    def do(run: str, *overrides: str, dry_run: bool = False) -> ReleaseReport:
        settings = tiny.make_settings(site, run, *overrides)
        return pipeline.release_candidate(settings, lambda line: None, dry_run)

    return do


def verdicts(report: ReleaseReport) -> dict[str, str]:
    return {record.name: record.verdict for record in report.gates}


def failed(report: ReleaseReport) -> set[str]:
    return {record.name for record in report.gates if record.verdict != "pass"}


def test_a_good_candidate_becomes_a_signed_version_and_again_is_unchanged(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str
) -> None:
    tiny.write_candidate(site / "runs", dataset)
    first = release("tiny-run")
    assert (first.outcome, first.version, failed(first)) == ("released", 1, set())
    signers = site / "keys/allowed_signers"
    found = verify_package(site / "store/flights/1", signers, "flights", 1)
    assert found.digest == first.digest
    made = manifest.read_manifest(site / "store/flights/1")
    assert made.lineage.run == "tiny-run" and made.previous is None
    assert (parse_time(made.expires) - parse_time(made.created)).days == 365
    assert {record.name for record in made.gates} == set(verdicts(first))
    registry = Registry(mlflow_db)
    assert registry.version_of("flights", CANDIDATE) == 1
    assert registry.version_of("flights", PRODUCTION) is None
    again = release("tiny-run")
    assert (again.outcome, again.version, again.digest) == ("unchanged", 1, first.digest)
    assert store.versions(site / "store", "flights") == [1]
    assert not list((site / "store" / store.STAGING).iterdir())
    (kept,) = (site / "store/reports").iterdir()
    assert json.loads(kept.read_text())["version"] == 1


def test_the_next_version_stands_beside_production(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str
) -> None:
    tiny.write_candidate(site / "runs", dataset, run="first")
    tiny.write_candidate(site / "runs", dataset, run="second", slope=0.9)
    tiny.write_candidate(site / "runs", dataset, run="worse", slope=0.05)
    release("first")
    tiny.deploy(site, "flights", 1)
    second = release("second")
    assert (second.outcome, second.version, second.production) == ("released", 2, 1)
    assert manifest.read_manifest(site / "store/flights/2").previous == 1
    names = {"interface.compatible", "production.auc", "production.log_loss"}
    assert names <= {name for name, verdict in verdicts(second).items() if verdict == "pass"}
    # 0.05 orders flights as 1 does, so AUC is the same; its probabilities are timid.
    worse = release("worse")
    assert worse.outcome == "refused"
    assert failed(worse) == {"logistic_regression.log_loss", "production.log_loss"}
    assert store.versions(site / "store", "flights") == [1, 2]
    assert Registry(mlflow_db).version_of("flights", CANDIDATE) == 2


@pytest.mark.parametrize(
    ("wrong", "gates"),
    [
        ({"served_slope": 1.001}, {"golden.equal"}),
        ({"slope": -1.0}, {"base_rate.auc", "base_rate.log_loss", "logistic_regression.auc",
                           "logistic_regression.log_loss"}),
        ({"requires": {"numpy": ">=2"}}, {"contents.requires"}),
        ({"outputs": [{"name": "late_probability", "dtype": "FP64", "shape": [-1, 1]}]},
         {"interface.served"}),
        ({"lineage": {"spec_digest": ""}}, {"contents.lineage"}),
    ],
)  # fmt: skip
def test_what_is_wrong_fails_its_own_gate_and_registers_nothing(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str,
    wrong: dict, gates: set[str],
) -> None:  # fmt: skip
    tiny.write_candidate(site / "runs", dataset, **wrong)
    report = release("tiny-run")
    assert (report.outcome, report.exit_code, report.version) == ("refused", 4, None)
    assert failed(report) == gates
    assert store.versions(site / "store", "flights") == []
    assert Registry(mlflow_db).version_of("flights", CANDIDATE) is None
    (kept,) = (site / "store/reports").iterdir()
    assert json.loads(kept.read_text())["outcome"] == "refused"


def test_a_slow_package_fails_latency_by_how_much(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path
) -> None:
    tiny.write_candidate(site / "runs", dataset, sleep=0.05)
    report = release("tiny-run", "gates.latency.low.p50_ms=40", dry_run=True)
    assert failed(report) == {"latency.p50.c1"}
    (slow,) = [record for record in report.gates if record.name == "latency.p50.c1"]
    assert slow.value is not None and slow.value > 50 and slow.threshold == 40


def test_a_model_that_does_not_load_leaves_unknown_and_the_reason(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path
) -> None:
    folder = tiny.write_candidate(site / "runs", dataset)
    (folder / "version/model.py").write_text("import no_such_module\n")
    report = release("tiny-run")
    assert report.outcome == "refused"
    (record,) = [record for record in report.gates if record.name == "golden.equal"]
    assert record.verdict == "unknown" and "no_such_module" in record.detail
    assert verdicts(report)["contents.files"] == "pass"


def test_a_changed_interface_needs_a_word(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str
) -> None:
    tiny.write_candidate(site / "runs", dataset, run="first")
    release("first")
    tiny.deploy(site, "flights", 1)
    folder = tiny.write_candidate(site / "runs", dataset, run="second", inputs=tiny.INPUTS[1:])
    narrower = (
        (folder / "config.pbtxt")
        .read_text()
        .replace('{ name: "carrier" data_type: TYPE_STRING dims: [ 1 ] },', "")
    )
    (folder / "config.pbtxt").write_text(narrower)
    examples = json.loads((folder / "golden.json").read_text())
    for example in examples:
        del example["inputs"]["carrier"]
    (folder / "golden.json").write_text(json.dumps(examples))
    refused = release("second")
    assert "interface.compatible" in failed(refused)
    allowed = release("second", "allow_breaking=true", "gates.latency.required=false")
    assert allowed.outcome == "released"


def test_a_dry_run_keeps_nothing(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str
) -> None:
    tiny.write_candidate(site / "runs", dataset)
    (site / "keys/release/id_ed25519").unlink()
    assert release("tiny-run", dry_run=True).outcome == "passed"
    assert store.versions(site / "store", "flights") == []
    assert not (site / "store/reports").exists()
    assert Registry(mlflow_db).version_of("flights", CANDIDATE) is None


def test_a_tampered_production_version_is_not_run(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str
) -> None:
    tiny.write_candidate(site / "runs", dataset, run="first")
    tiny.write_candidate(site / "runs", dataset, run="second", slope=0.9)
    release("first")
    tiny.deploy(site, "flights", 1)
    model = site / "store/flights/1/version/model.py"
    model.chmod(0o644)
    model.write_text(model.read_text() + "\n")
    with pytest.raises(ValueError, match=r"version/model\.py"):
        release("second")


KILLED = textwrap.dedent("""
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from tests.serving.release import tiny
    from serving.release import pipeline
    from pathlib import Path
    def say(line):
        print(line, flush=True)
        if line.startswith(sys.argv[3]) or sys.argv[3] in line:
            os._exit(9)  # kill -9: no clean-up of ours runs
    if sys.argv[3] == "before the alias":
        pipeline._register = lambda *arguments: os._exit(9)
    pipeline.release_candidate(tiny.make_settings(Path(sys.argv[2]), "tiny-run"), say)
""")


def tritons(site: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        places = (str(site), str(tiny.gates_folder(site)))
        if any(place in word for place in places for word in process.info["cmdline"] or []):
            found.append(process)
    return [process for process in found if process.pid != os.getpid()]


@pytest.mark.parametrize(
    "moment",
    [
        "number",
        "sign",
        "published",
        *(pytest.param(moment, marks=pytest.mark.full)
          for moment in ("take", "golden.equal", "before the alias")),
    ],
)  # fmt: skip
def test_killed_anywhere_and_run_again_it_ends_well(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str, moment: str
) -> None:
    tiny.write_candidate(site / "runs", dataset)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(REPO), str(site), moment],
        env={**os.environ, "PYTHONPATH": str(REPO)}, timeout=300,
    )  # fmt: skip
    assert killed.returncode == 9
    deadline = time.monotonic() + 30
    while tritons(site) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert tritons(site) == []
    again = release("tiny-run")
    whole = moment in ("before the alias", "published")
    assert again.outcome == ("unchanged" if whole else "released")
    assert (again.version, failed(again)) == (1, set())
    assert verify_package(site / "store/flights/1", site / "keys/allowed_signers", "flights", 1)
    assert Registry(mlflow_db).version_of("flights", CANDIDATE) == 1
    assert store.versions(site / "store", "flights") == [1]
    assert not list((site / "store" / store.STAGING).iterdir())


INTERRUPTED = textwrap.dedent("""
    import sys
    from pathlib import Path
    from tests.serving.release import tiny
    from serving.release import pipeline
    settings = tiny.make_settings(
        Path(sys.argv[1]), "tiny-run", "gates.latency.rounds=50", "gates.latency.round_s=1.0"
    )
    try:
        pipeline.release_candidate(settings, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
""")


def test_ctrl_c_under_load_ends_it_without_a_traceback(site: Path, dataset: Path) -> None:
    tiny.write_candidate(site / "runs", dataset)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(site)], env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if "golden.equal" in line:
                break
        time.sleep(2)  # the latency gate is next, and takes minutes with these settings
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert (out.strip().splitlines()[-1], errors, process.returncode) == ("interrupted", "", 0)
    assert tritons(site) == []
    assert store.versions(site / "store", "flights") == []


def test_two_releases_of_one_model_do_not_mix(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path
) -> None:
    tiny.write_candidate(site / "runs", dataset)
    with (
        release_lock(site / "store", "flights", "other-run"),
        pytest.raises(ReleaseLocked, match="other-run"),
    ):
        release("tiny-run")


def test_a_key_that_no_host_accepts_is_found_before_the_gates(site: Path, dataset: Path) -> None:
    tiny.write_candidate(site / "runs", dataset)
    (site / "keys/allowed_signers").write_text(
        'release@lockgate namespaces="lockgate-release" ssh-ed25519 '
        "AAAAC3NzaC1lZDI1NTE5AAAAIMlkxUcHNpDvRqGmVzfJJWvxLXTfVQuNLDj1Pc8Xqb8z\n"
    )
    said: list[str] = []
    with pytest.raises(ValueError, match="not an allowed signer"):
        pipeline.release_candidate(tiny.make_settings(site, "tiny-run"), said.append)
    assert said == ["take tiny-run"]


def test_a_candidate_of_another_run_is_refused(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path
) -> None:
    folder = tiny.write_candidate(site / "runs", dataset, run="original")
    (site / "runs/copy").mkdir()
    folder.rename(site / "runs/copy/candidate")
    with pytest.raises(ReleaseError, match="copied from elsewhere"):
        release("copy")


def test_mlflow_that_fails_after_the_version_is_published_is_said_truly_and_completed(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path, mlflow_db: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tiny.write_candidate(site / "runs", dataset)

    def fail(*arguments: object) -> None:
        raise RegistryError("the MLflow registry did not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "set_alias", fail)
        with pytest.raises(PublishedNotRegistered) as one:
            release("tiny-run")
    assert one.value.exit_code == 3
    assert str(one.value).startswith("flights/1 is published in the store, but not registered")
    assert "Run the same command again" in str(one.value)
    assert store.versions(site / "store", "flights") == [1]
    assert Registry(mlflow_db).version_of("flights", CANDIDATE) is None
    assert release("tiny-run").outcome == "unchanged"
    assert Registry(mlflow_db).version_of("flights", CANDIDATE) == 1


NOT_IMPORTED = textwrap.dedent("""
    import re, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from tests.serving.release import tiny
    from serving.release import pipeline
    site = Path(sys.argv[2])
    imported = []
    def watch(event, arguments):
        if event == "import" and arguments[1]:
            imported.append(arguments[1])
        if event == "open" and str(arguments[0]).endswith((".py", ".pyc")):
            imported.append(str(arguments[0]))
    sys.addaudithook(watch)
    done = pipeline.release_candidate(tiny.make_settings(site, "tiny-run"), lambda line: None, True)
    origins = [getattr(one, "__file__", None) or "" for one in list(sys.modules.values())]
    inside = [one for one in origins + sys.path if one.startswith(str(site))]
    source = [one for one in imported if one.startswith(str(site)) and one.endswith(".pyc")]
    detail = next(one.detail for one in done.gates if one.name == "golden.equal")
    print(done.outcome, inside, source, "|", re.search(r"ran in \\d+ of \\d+", detail)[0])
""")


def test_nothing_of_a_candidate_is_imported_by_the_release(site: Path, dataset: Path) -> None:
    folder = tiny.write_candidate(site / "runs", dataset)
    entry = folder / "version/model.py"
    entry.write_text("import os\nraise OSError(f'ran in {os.getpid()} of {os.getuid()}')\n")
    done = subprocess.run(
        [sys.executable, "-c", NOT_IMPORTED + 'print(__import__("os").getpid())', str(REPO),
         str(site)],
        env={**os.environ, "PYTHONPATH": str(REPO)}, timeout=300, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    outcome, own_pid = done.stdout.strip().splitlines()
    report, place = outcome.split(" | ")
    assert report == "refused [] []"
    # Behind the confined server, as its user, and only there.
    pid, user = re.fullmatch(r"ran in (\d+) of (\d+)", place).groups()
    assert (pid, user) != (own_pid, str(os.getuid()))
    assert user == str(pwd.getpwnam(USER).pw_uid)


def test_the_candidates_own_code_is_named_in_report_and_manifest(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path
) -> None:
    tiny.write_candidate(site / "runs", dataset)
    report = release("tiny-run")
    (record,) = [record for record in report.gates if record.name == "contents.runtime"]
    digest = file_sha256(site / "store/flights/1/version/model.py")
    assert [(one.path, one.sha256) for one in report.code] == [("version/model.py", digest)]
    assert json.loads(report.as_json())["code"][0]["sha256"] == digest
    assert manifest.read_manifest(site / "store/flights/1").code == ("version/model.py",)
    assert release("tiny-run").code == report.code
    assert record.verdict == "pass" and record.detail.endswith("own code: version/model.py")


def test_slices_and_a_gate_of_ones_own_are_judged_through_the_served_package(
    release: Callable[..., ReleaseReport], site: Path, dataset: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tiny.write_candidate(site / "runs", dataset)
    (tmp_path / "calibrated_project.py").write_text(CALIBRATED)
    monkeypatch.syspath_prepend(tmp_path)
    report = release(
        "tiny-run",
        "+gates.base_rate.auc.slices=[carrier]",
        "+gates.calibrated._target_=calibrated_project.CalibratedGate",
        "+gates.calibrated.required=true",
        dry_run=True,
    )
    found = verdicts(report)
    assert found["calibrated"] == "pass" and report.outcome == "passed"
    slices = {name for name in found if name.startswith("base_rate.auc.carrier=")}
    assert slices == {f"base_rate.auc.carrier={one}" for one in ("AA", "UA", "ZZ")}


CALIBRATED = textwrap.dedent("""
    from dataclasses import dataclass
    from serving.release.gate import at_most

    @dataclass(frozen=True)
    class CalibratedGate:
        required: bool

        def names(self, name, subject):
            return (name,)

        def run(self, name, subject):
            gap = subject.predictions("holdout").mean() - subject.examples("holdout").target.mean()
            yield at_most(name, abs(gap), 0.05, "mean prediction against mean outcome")
""")
