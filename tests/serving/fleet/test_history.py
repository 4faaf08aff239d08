"""`fab history`, the choice of `fab rollback`, and `fab watch`, over journals that were written."""

from __future__ import annotations

import io
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from conf.errors import INCOMPLETE
from conf.page import duration
from serving.fleet.cli import picker
from serving.fleet.cli.command import Controls
from serving.fleet.cli.history import history_lines, history_table, rollout_history
from serving.fleet.cli.picker import (
    EarlierVersion,
    chosen_version,
    earlier_versions,
    offer_lines,
    picked_version,
)
from serving.fleet.cli.watch import follow_rollout, running_rollout
from serving.fleet.errors import FleetConfigError
from serving.fleet.report.journal_tail import JournalTail
from serving.fleet.report.pages import find_rollout
from serving.fleet.report.text import ago
from serving.fleet.rollout.engine import RolloutConfig
from serving.fleet.rollout.journal import ROLLOUTS
from serving.fleet.rollout.records import LedgerEntry
from tests.serving.fleet import journals


@pytest.fixture
def written(tmp_path, monkeypatch):
    found = journals.WrittenJournal(tmp_path, monkeypatch)
    found.production(4, "r4")
    found.at = 60
    found.deployment()
    return found


@pytest.fixture
def on(written, tmp_path):
    return Controls(None, tmp_path / "store", written.journal, RolloutConfig(), "", None)


def test_the_history_has_who_why_how_it_ended_and_how_long_it_took(written, on):
    written.failure()
    newest, older = rollout_history(on, None, None)
    assert (newest.rollout, newest.outcome, newest.previous) == ("r6", "rolled-back", 5)
    assert newest.outcome_reason == "14 of 46 requests to toy/6 failed"
    assert (older.action, older.reason) == ("deploy", "better recall in the west")
    assert (older.requests, older.failed, older.seconds) == (7008, 0, 34.6)
    assert "@" in older.who
    assert [one.rollout for one in rollout_history(on, "toy", "1")] == ["r6"]
    lines = history_lines([newest, older])
    assert "rolled-back" in lines[0] and "better recall in the west" in lines[1]


def test_a_killed_rollout_is_open_until_the_next_of_its_model_goes_on_from_it(written, on):
    def ends():
        rows = rollout_history(on, None, None)
        return {row.rollout: (row.outcome, row.continued_by, row.outcome_reason) for row in rows}

    written.start("r6", 6, 5)
    written.journal.record("started", "other", model="other", version=1)
    assert ends()["r6"] == ("open", "", "")
    written.start("r7", 5, 5, action="rollback", resumes="r6")
    assert ends()["r6"] == ("continued", "r7", "continued by rollback r7")
    assert ends()["r7"] == ends()["other"] == ("open", "", "")
    assert ends()["r5"] == ("done", "", ""), "an end of its own stays"
    sentence, code = follow_rollout(
        on, find_rollout(on.journal, "r6"), lambda *_: None, lambda: True, lambda _: None
    )
    assert code == INCOMPLETE and "was cut off, and r7 went on" in sentence
    written.record(1, "done", "r7", 5)
    written.failure("r8", stuck=True)
    written.start("r9", 5, 5, action="heal")
    written.record(1, "done", "r9", 5)
    outcome, by, why = ends()["r8"]
    assert (outcome, by) == ("manual-intervention", "r9") and why.endswith("; continued by heal r9")
    assert "continued" in "".join(history_lines(rollout_history(on, None, None)))


def test_a_reason_obeys_nobody_in_the_table(written, on):
    written.start("r7", 7, 5, reason="\x1b[2J[red]gone[/red]")
    out = io.StringIO()
    Console(file=out, width=200).print(history_table(rollout_history(on, None, None)))
    assert "\x1b[2J" not in out.getvalue() and "[red]gone[/red]" in out.getvalue()


@pytest.mark.parametrize("count", ["0", "-1", "x", "²", "9" * 99])
def test_an_odd_count_is_a_sentence(on, count):
    with pytest.raises(FleetConfigError, match="fab history -n 50"):
        rollout_history(on, None, count)


def entry(version: int, action: str = "deploy") -> LedgerEntry:
    return LedgerEntry(f"2026-01-0{version}T00:00:00+00:00", "a@b", action, "r", "toy", version)


def test_earlier_versions_are_the_way_back_the_nearest_first():
    ledger = [entry(1), entry(2), entry(3), entry(4), entry(2, "rollback"), entry(5)]
    offered = earlier_versions(ledger, {"a": (2, 5), "b": (2,), "c": (5,)})
    assert [(one.version, one.warm) for one in offered] == [(2, 2), (1, 0)]
    lines = offer_lines("toy", 5, offered, offered[0].since + 7200)
    assert lines[0] == "toy/5 is in production. Back to:"
    assert "1  toy/2" in lines[1] and "2 h ago, by a@b; warm on 2 hosts" in lines[1]
    assert "not known to be loaded" in lines[2]


OFFERED = [EarlierVersion(4, 0, "a@b", 1), EarlierVersion(2, 0, "a@b", 0)]


@pytest.mark.parametrize(
    ("answer", "version"),
    [("", 4), (" \n", 4), ("1", 4), ("2", 2), ("3", None), ("0", None), ("n", None), ("²", None)],
)
def test_enter_is_the_first_and_a_number_is_its_line(answer, version):
    assert chosen_version(answer, OFFERED) == version


@given(st.text(max_size=5))
def test_no_answer_leads_to_a_version_that_was_not_offered(answer):
    assert chosen_version(answer, OFFERED) in (4, 2, None)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(picker, "at_terminal", lambda: True)


def test_a_person_at_a_terminal_chooses(on, terminal, capsys):
    assert picked_version(on, "toy", lambda _: "") == 4
    assert "toy/5 is in production. Back to:" in capsys.readouterr().out
    with pytest.raises(FleetConfigError, match=r"nothing was changed.*--version 4"):
        picked_version(on, "toy", lambda _: "7")


def test_an_end_of_the_input_is_no_answer(on, terminal):
    def ended(_: str) -> str:
        raise EOFError

    with pytest.raises(FleetConfigError, match="nothing was changed"):
        picked_version(on, "toy", ended)


def never(_: str) -> str:
    pytest.fail("a question was put")


def test_nobody_is_asked_without_a_terminal(on):
    assert picked_version(on, "toy", never) is None


def test_an_open_rollout_is_ended_without_a_question(written, on, terminal):
    written.start("r6", 6, 5)
    assert picked_version(on, "toy", never) is None


def test_a_rollout_of_another_is_followed_from_its_first_step_to_its_end(written, on):
    written.start("r6", 6, 5, waves=[["use1-a"]])
    written.record(1, "step", "r6", 6, host="use1-a", step="load", detail="5 and 6")
    record = running_rollout(on, None)
    seen = []
    begun = threading.Event()

    def progress(host: str, step: str, detail: str) -> None:
        seen.append((host, step, detail))
        begun.set()

    def end_it() -> None:
        begun.wait(10)
        written.record(1, "routed", "r6", 6, edge="us-east",
                       routing={"version": 6, "canary": None, "percent": 0})  # fmt: skip
        written.record(0, "done", "r6", 6)

    thread = threading.Thread(target=end_it)
    thread.start()
    sentence, code = follow_rollout(on, record, progress, lambda: True)
    thread.join()
    assert (sentence, code) == ("toy/6 is in production, in 2.0 s.", 0)
    assert seen[1] == ("use1-a", "load", "5 and 6")
    assert ("us-east", "route", "all to 6") in seen and seen[-1][:2] == ("fleet", "end")
    assert running_rollout(on, None) is None


def test_a_rollout_that_failed_or_was_left_is_followed_to_that_end(written, on):
    written.failure()
    record = [one for one in [running_rollout(on, None)] if one]
    assert record == []
    written.start("r7", 7, 5)
    sentence, code = follow_rollout(
        on, running_rollout(on, "toy"), lambda *_: None, lambda: False, lambda _: None
    )
    assert code == 3 and "its controller is gone" in sentence
    written.start("r8", 7, 5)
    written.record(1, "done", "r8", 7)
    assert running_rollout(on, None) is None, "the next rollout went on from the killed one"


def test_half_a_line_waits_for_its_end(tmp_path, written):
    tail = JournalTail.at_the_end(written.journal.folder / ROLLOUTS)
    written.start("r7", 7, 5)
    path = written.journal.folder / ROLLOUTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert tail.read() == []
    path.write_bytes(whole + b"{nonsense}\n")
    assert [one.rollout for one in tail.read()] == ["r7"] and tail.read() == []


@pytest.mark.parametrize(
    ("seconds", "span", "back"),
    [
        (0.04, "0.0 s", "just now"), (9.0, "9.0 s", "9 s ago"), (9.97, "10 s", "9 s ago"),
        (61, "1 min 1 s", "1 min ago"), (3600, "1 h", "1 h ago"), (7500, "2 h 5 min", "2 h ago"),
        (86400, "1 day", "1 day ago"), (9e5, "10 days", "10 days ago"), (-5, "0.0 s", "just now"),
    ],
)  # fmt: skip
def test_times_are_for_people(seconds, span, back):
    assert (duration(seconds), ago(seconds)) == (span, back)
