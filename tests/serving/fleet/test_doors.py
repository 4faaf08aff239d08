"""Odd strings at the doors of `fab`, odd hosts, models and lines behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Context
from invoke.exceptions import Exit
from omegaconf import OmegaConf

import conf
from serving.fleet.cli import command, status, tasks
from serving.fleet.cli.command import Controls
from serving.fleet.inventory import fleet_from
from serving.fleet.rollout.driver import HostState, HostVerification
from serving.fleet.rollout.engine import RolloutConfig
from serving.fleet.rollout.journal import LEDGER, ROLLOUTS, Journal
from serving.fleet.rollout.lease import lock_fleet
from serving.fleet.routing import Routing, VersionCounters
from serving.triton import model_config

REPO = Path(__file__).resolve().parents[3]
ODD_MODELS = ["x; touch /tmp/p #", "$(touch p)", "../../x", "a b", "a\nb", "a|b", "-x", "", "é",
              "x" * 300, "\x1b[2J", "stats", "\ud800"]  # fmt: skip
ODD_VERSIONS = ["0", "-1", "²", "３", "1e3", "1; reboot", "9" * 5000, "", "\n3", "3 "]


@pytest.fixture
def no_fleet(monkeypatch, tmp_path):
    """Controls over an empty site, where reaching for a host is a failure."""

    def reached(*_: object) -> None:
        pytest.fail("an odd string came as far as a host")

    monkeypatch.setattr(command, "SshDriver", reached)
    monkeypatch.setattr(status, "SshDriver", reached)
    on = Controls(
        None, tmp_path / "store", Journal(tmp_path / "journal"), RolloutConfig(), "", None
    )
    monkeypatch.setattr(command, "controls", lambda config: on)
    monkeypatch.setattr(conf, "compose", lambda *_: None)
    return on


@pytest.mark.parametrize("name", ["plan", "deploy", "rollback", "heal", "status"])
@pytest.mark.parametrize("model", ODD_MODELS)
def test_an_odd_model_is_refused_at_the_door(no_fleet, capsys, name, model):
    with pytest.raises(Exit) as ended:
        getattr(tasks, name).body(Context(), model=model)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.startswith("fab: --model=") and "A-Z a-z 0-9 _ . -" in error
    assert error.count("\n") == 1 and error.isascii() and "\x1b" not in error
    if model == ODD_MODELS[0]:
        assert error.endswith(f"Type: fab {name} --model x_touch_tmp_p\n")


@pytest.mark.parametrize("name", ["plan", "deploy", "rollback"])
@pytest.mark.parametrize("version", ODD_VERSIONS)
def test_an_odd_version_is_refused_at_the_door(no_fleet, capsys, name, version):
    with pytest.raises(Exit) as ended:
        getattr(tasks, name).body(Context(), model="toy", version=version)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.endswith(f"Type: fab {name} --version 3\n")
    assert error.count("\n") == 1 and len(error) < 200


@pytest.mark.parametrize("override", ["", "x", "rollout.parallel", "a\nb=1", "rollout.nosuch=1",
                                      "rollout.strategy=$(reboot)", "=", "\x00=1"])  # fmt: skip
def test_an_odd_override_is_one_sentence(monkeypatch, capsys, override):
    monkeypatch.setattr(status, "SshDriver", lambda *_: pytest.fail("reached a host"))
    with pytest.raises(Exit) as ended:
        tasks.status.body(Context(), model="toy", set=[override])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("fab: ")


def test_an_odd_model_reaches_no_shell_from_the_command_line(tmp_path):
    trace = tmp_path / "p"
    done = subprocess.run(
        [sys.executable, "-m", "fabric", "status", "--model", f"x; touch {trace} #"],
        cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("fab: --model=") and "Type: fab status --model x_" in done.stderr
    assert not trace.exists()


@pytest.mark.parametrize("region", ["us-east; reboot", "us-a\nb", "us-../x", "us-" + "e" * 99])
def test_an_odd_region_is_refused(region):
    config = conf.compose("rollout")
    OmegaConf.set_struct(config, False)
    config.site.edges[region] = config.site.edges["us-east"]
    with pytest.raises(conf.LockgateError, match=r"region=.*a name has") as refused:
        fleet_from(config)
    assert refused.value.exit_code == 2


class OddFleet:
    """Three hosts, of which two are odd; every read of the model `cursed` fails."""

    def __init__(self, fleet, model, *_: object) -> None:
        self.model = model

    def __enter__(self) -> OddFleet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_hosts(self, verify: bool = False) -> dict[str, HostState]:
        if self.model == "cursed":
            raise KeyError("manifest")
        config = model_config.with_versions('name: "toy" backend: "python"', (2,))
        found = HostVerification("2026-01-01T00:00:00Z", False, ("toy/2: changed-file model.py",))
        states = [
            HostState("a", "us-east", (2,), config, ((2, "d2"),)),
            HostState("b", "us-east", problem="b: \x1b[31mnoise\ud800"),
            HostState("c", "us-west", (2,), "nonsense {", ((2, "d2"),), verification=found),
        ]
        return {state.host: state for state in states}

    def read_routing(self) -> dict[str, Routing | str]:
        return {"us-east": Routing(2), "us-west": "the edge of us-west: \x1b[31mnoise"}

    def counters(self) -> dict[int, VersionCounters]:
        return {2: VersionCounters(100, 1)}

    def edges_of(self, host) -> tuple[str, ...]:
        return (host.region,)


@pytest.fixture
def odd_site(monkeypatch, tmp_path):
    journal = Journal(tmp_path)
    for model in ("cursed", "toy"):
        journal.enter("deploy", "r1", model=model, version=2, digest="d2", previous=None)
    for name in (LEDGER, ROLLOUTS):
        with (tmp_path / name).open("ab") as stream:
            stream.write(b'7\n{"model":"flights"}\n\xff\n')
    with (tmp_path / ROLLOUTS).open("ab") as stream:
        stream.write(b'{"at":"2026-01-0\n')
    on = Controls(None, tmp_path / "store", journal, RolloutConfig(), "", None)
    monkeypatch.setattr(command, "controls", lambda config: on)
    monkeypatch.setattr(status, "SshDriver", OddFleet)
    return on


def test_one_odd_host_model_or_line_hides_no_other(odd_site, capsys):
    lock_fleet(odd_site.journal, "new disks", 60)
    with pytest.raises(Exit) as ended:
        tasks.status.body(Context(), json=True)
    assert ended.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert [(row["host"], row["model"], row["answers"]) for row in found["rows"]] == [
        ("a", "toy", 2), ("b", "toy", None), ("c", "toy", 2),
    ]  # fmt: skip
    drifts = [" ".join(row["drift"]) for row in found["rows"]]
    assert drifts[0] == "" and drifts[1] == "b: \x1b[31mnoise\ud800"
    assert "not a Triton model config" in drifts[2]
    remarks = "\n".join(found["remarks"])
    for number, name in [(3, LEDGER), (4, LEDGER), (5, LEDGER), (1, ROLLOUTS), (3, ROLLOUTS)]:
        assert f"{name}:{number}: " in remarks
    assert "cursed cannot be shown: KeyError: 'manifest'" in remarks
    notes = "\n".join(found["notes"])
    assert f"{ROLLOUTS}:4: cut off" in notes and "locked this fleet" in notes
    assert "new disks" in notes


def test_the_text_of_a_status_obeys_nobody(odd_site, capsys):
    with pytest.raises(Exit):
        tasks.status.body(Context())
    out = capsys.readouterr().out
    assert "\x1b" not in out and r"b: \x1b[31mnoise\ud800" in out
    assert "us-west" in out and f"{LEDGER}:3: " in out


def test_a_torn_line_alone_is_no_drift(monkeypatch, tmp_path, capsys):
    journal = Journal(tmp_path)
    (tmp_path / ROLLOUTS).write_bytes(b'{"at":"2026-01-0\n')
    on = Controls(None, tmp_path / "store", journal, RolloutConfig(), "", None)
    monkeypatch.setattr(command, "controls", lambda config: on)
    tasks.status.body(Context())
    assert f"{ROLLOUTS}:1: cut off" in capsys.readouterr().out


def test_a_journal_that_may_not_be_read_is_a_sentence(odd_site, monkeypatch, capsys):
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(Exit) as ended:
        tasks.status.body(Context())
    assert ended.value.code == 2
    assert "scripts/site as deploy fab" in capsys.readouterr().err


STATUS = """
import sys
from invoke import Context
from invoke.exceptions import Exit
from serving.fleet.cli import command, status, tasks
from serving.fleet.cli.host_status import Row
from serving.fleet.cli.status import Status

row = Row("toy", "a", "us-east", (1, 2), 2, 2, "ab" * 32, "ready", ("gets no traffic",))
status.fleet_status = lambda on, model: Status((row,) * 5000, ())
command.controls = lambda config: None
try:
    tasks.status.body(Context(), json="json" in sys.argv)
except Exit as ended:
    sys.exit(ended.code)
"""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_status_into_head_ends_without_a_traceback(form):
    with subprocess.Popen(
        [sys.executable, "-c", STATUS, form], cwd=REPO, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPO)},
    ) as process:  # fmt: skip
        head = subprocess.run(["head", "-1"], stdin=process.stdout, capture_output=True, text=True)
        process.stdout.close()
        error = process.stderr.read().decode()
        assert process.wait(timeout=60) == 1
    assert head.stdout.strip() and error == ""


@pytest.mark.parametrize("command", ["-l", "history", "report", "status"])
def test_every_command_into_a_closed_pipe_ends_without_a_traceback(tmp_path, command):
    environment = {**os.environ, "PYTHONPATH": str(REPO), "LOCKGATE_SITE": str(tmp_path)}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "fabric", command], cwd=REPO, env=environment, stdout=writing,
        stderr=subprocess.PIPE, text=True, timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user's number")
def test_a_user_without_a_name_is_an_operator_too():
    code = (
        "import os; os.setuid(54321); from serving.fleet.rollout.journal import operator;"
        "print(operator())"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", f"import serving.fleet.rollout.journal; {code}"],
        env=environment, cwd=REPO, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("54321@"), done.stderr
