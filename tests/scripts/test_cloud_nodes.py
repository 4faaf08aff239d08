"""Cloud nodes of the box: what Slurm's user asks for by files, and what the daemon does of it."""

from __future__ import annotations

import os
import subprocess
import xmlrpc.client
from dataclasses import replace
from pathlib import Path

import pytest

from conf.site_schema import Site
from scripts.box import cloud_nodes
from scripts.box.program import Program
from scripts.box.programs import all_programs, stop_order
from scripts.box.state import Daemon


class Control:
    """A supervisord that writes down what it is asked for, and refuses as `fault` has it."""

    def __init__(self, fault: int = 0) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fault = fault

    def startProcess(self, name: str, wait: bool) -> None:
        self._note("start", name)

    def stopProcess(self, name: str, wait: bool) -> None:
        self._note("stop", name)

    def _note(self, verb: str, name: str) -> None:
        self.calls.append((verb, name))
        if self.fault:
            raise xmlrpc.client.Fault(self.fault, "REFUSED")


@pytest.mark.parametrize(
    ("wanted", "state", "todo"),
    [
        (True, "STOPPED", "start"),
        (True, "FATAL", "start"),
        (True, "RUNNING", None),
        (True, "STARTING", None),
        (True, "STOPPING", None),
        (True, "ABSENT", None),
        (False, "RUNNING", "stop"),
        (False, "BACKOFF", "stop"),
        (False, "STOPPED", None),
        (False, "ABSENT", None),
    ],
)
def test_a_node_is_made_what_its_file_wants(wanted: bool, state: str, todo: str | None) -> None:
    assert cloud_nodes.change(wanted, state) == todo


def test_only_the_nodes_of_the_config_are_started_whatever_files_are_there(tmp_path: Path) -> None:
    for name in ("n3", "mlflow", "..n9"):
        (tmp_path / name).touch()
    control = Control()
    states = {"slurmd-n3": "STOPPED", "slurmd-n4": "RUNNING", "mlflow": "STOPPED"}
    cloud_nodes.adjust(control, states, tmp_path, ["n3", "n4"])
    assert control.calls == [("start", "slurmd-n3"), ("stop", "slurmd-n4")]


@pytest.mark.parametrize(("code", "said"), [(60, ""), (10, "n3: could not start: REFUSED\n")])
def test_a_refused_start_is_written_down_and_no_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, said: str
) -> None:
    (tmp_path / "n3").touch()
    cloud_nodes.adjust(Control(code), {"slurmd-n3": "STOPPED"}, tmp_path, ["n3"])
    assert capsys.readouterr().out == f"n3: start\n{said}"


def test_slurms_programs_leave_and_remove_a_file_for_each_node(site: Site, tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames n[3-4]" ] && printf "n3\\nn4\\n"\n')
    scontrol.chmod(0o755)
    cloud_nodes.wanted_folder(site).mkdir(parents=True)

    def call(file: Path, text: str) -> list[str]:
        file.write_text(text)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["sh", str(file), "n[3-4]"], env=environment, check=True)
        return sorted(path.name for path in cloud_nodes.wanted_folder(site).iterdir())

    resume, suspend = cloud_nodes.files(site)
    assert call(tmp_path / "resume", resume.text) == ["n3", "n4"]
    assert call(tmp_path / "suspend", suspend.text) == []
    assert (resume.mode, resume.owner) == (0o755, "root")  # Slurm's user runs it, and no more


def test_the_daemon_stops_before_the_nodes_that_it_would_start_again(site: Site) -> None:
    when = {
        program.name: k for k, wave in enumerate(stop_order(all_programs(site))) for program in wave
    }
    assert when["cloud-nodes"] < when["slurmd-n3"]


def test_a_program_that_is_not_needed_is_healthy_and_a_failed_one_is_not() -> None:
    node = Program("slurmd-n3", ("slurmd",), probe=lambda: "", on_demand=True)
    off = Daemon(node, "STOPPED", 0, 0, "", Path("log"))
    assert off.healthy
    assert not replace(off, state="FATAL", fault="is FATAL").healthy
    assert not replace(off, program=replace(node, on_demand=False), fault="is STOPPED").healthy
