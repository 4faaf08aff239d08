"""scripts/site as a person types it: refusals are a line and a status, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conf.site_schema import Site
from scripts.box.__main__ import main
from scripts.box.program import Refusal
from scripts.box.programs import all_programs
from scripts.box.state import Daemon
from scripts.box.status import as_json
from scripts.box.supervisor import log_of
from scripts.box.up import tail


def test_an_unknown_verb_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restart"]) == 2
    assert main(["up", "now"]) == 2
    assert "scripts/site up" in capsys.readouterr().err


def test_a_refusal_is_one_line(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Refusal("not installed: slurmctld.")

    monkeypatch.setattr("scripts.box.preflight.check_machine", refuse)
    assert main(["up"]) == 2
    assert capsys.readouterr().err == "scripts/site: not installed: slurmctld.\n"


def test_the_json_names_every_daemon_and_its_fault(site: Site) -> None:
    daemons = [
        Daemon(program, "RUNNING", 7, 0, "no answer" if program.name == "mlflow" else "",
               log_of(site, program))
        for program in all_programs(site)
    ]  # fmt: skip
    said = json.loads(as_json(site, daemons))
    assert said["healthy"] is False
    sick = [daemon for daemon in said["daemons"] if not daemon["healthy"]]
    assert [(daemon["name"], daemon["fault"]) for daemon in sick] == [("mlflow", "no answer")]
    assert said["urls"]["us-west"] == "http://127.0.0.1:18081"


def test_a_log_that_is_not_there_is_said(site: Site, tmp_path: Any) -> None:
    assert "no log" in tail(tmp_path / "none.log")
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {k}\n" for k in range(30)))
    assert tail(log, 2) == "  line 28\n  line 29"
