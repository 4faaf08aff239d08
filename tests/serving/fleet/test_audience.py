"""The audience of a rollout: events, webhook, live tree, page. None of it can fail a rollout."""

from __future__ import annotations

import http.server
import io
import json
import re
import sys
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console

from conf.errors import ConfigError
from serving.fleet.cli.audience import roll_for_audience
from serving.fleet.cli.command import Controls, RolloutReport
from serving.fleet.cli.events import Webhook
from serving.fleet.cli.live import LiveView
from serving.fleet.errors import FleetError
from serving.fleet.rollout.engine import Outcome, RolloutConfig
from serving.fleet.rollout.journal import Journal
from tests.serving.fleet import simulated as sim


@pytest.fixture
def on(tmp_path):
    journal = Journal(tmp_path / "journal")
    return Controls(None, tmp_path / "store", journal, RolloutConfig(), "", None)


def quiet(*_: str) -> None:
    pass


def rollout(on: Controls, error: Exception | None = None):
    """A deployment that does nothing but write to the journal."""

    def act(progress):
        about = {"model": "toy", "version": 5}
        on.journal.record("started", "r5", **about, action="deploy", reason="new", waves=[["a"]])
        progress("a", "load", "5")
        on.journal.record("step", "r5", **about, host="a", step="load", detail="5")
        if error:
            raise error
        on.journal.record("done", "r5", **about)
        return RolloutReport(Outcome("done"), "toy", 5, "d", None, "r5", ("a",), 0.1)

    return act


@pytest.fixture
def receiver():
    """A webhook's receiver on loopback: `.bodies`, `.status` to answer with, `.url`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.bodies.append(json.loads(body))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.bodies, server.status = [], 200
    server.url = f"http://127.0.0.1:{server.server_address[1]}/hook/s3cret"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_events_are_the_journals_lines_and_the_end(on, tmp_path):
    on.journal.record("started", "r0", model="toy", version=4)
    file = tmp_path / "events.jsonl"
    report = roll_for_audience(on, "fab deploy", quiet, str(file), False, rollout(on))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [one["event"] for one in events] == ["started", "step", "done", "ended"]
    assert events[-1]["exit_code"] == 0 and events[-1]["outcome"]["kind"] == "done"
    assert report.warning == ""


def test_a_rollout_of_the_engine_has_its_events_and_its_page(on, tmp_path):
    driver, file = sim.serving_fleet((1,)), tmp_path / "events.jsonl"

    def act(progress):
        outcome = sim.act(driver, on.journal.folder, "deploy", 2, "r2", progress=progress, bake_s=0)
        return RolloutReport(outcome, "toy", 2, "d", 1, "r2", (), 0.1)

    report = roll_for_audience(on, "fab deploy", quiet, str(file), False, act)
    assert report.outcome.kind == "done" and report.warning == ""
    events = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    assert events[0] == "started" and events[-2:] == ["done", "ended"]
    assert {"counters", "before", "step", "proven", "routed", "analysis"} <= set(events)
    page = (on.journal.folder / "pages" / "r2.html").read_text()
    assert re.search(r"<h1[^>]*>toy/2 is in production: 0 of [1-9][0-9,]* requests failed", page)
    assert page.count('<g class="lane host"') == 4 and page.count('<g class="lane edge"') == 2


def test_events_on_stdout_are_alone_there(on, capsys):
    roll_for_audience(on, "fab deploy", quiet, "-", False, rollout(on))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["started", "step", "done", "ended"]


def test_events_that_cannot_be_written_are_refused_before_anything_is_done(on, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        roll_for_audience(on, "fab deploy", quiet, str(tmp_path / "no/such/folder"), False,
              lambda _: pytest.fail("it began"))  # fmt: skip


def test_events_into_a_full_disk_are_a_warning(on):
    report = roll_for_audience(on, "fab deploy", quiet, "/dev/full", False, rollout(on))
    assert report.outcome.kind == "done" and "/dev/full has no more events" in report.warning


def test_the_webhook_hears_of_the_start_and_of_the_end(on, receiver):
    on = replace(on, config=RolloutConfig(webhook=receiver.url))
    report = roll_for_audience(on, "fab deploy", quiet, None, False, rollout(on))
    start, end = receiver.bodies
    assert (start["event"], start["rollout"], start["reason"]) == ("started", "r5", "new")
    assert (end["event"], end["rollout"], end["exit_code"]) == ("ended", "r5", 0)
    assert report.warning == ""


def test_the_webhook_hears_of_a_rollout_that_broke(on, receiver):
    on = replace(on, config=RolloutConfig(webhook=receiver.url))
    with pytest.raises(FleetError):
        roll_for_audience(
            on, "fab deploy", quiet, None, False, rollout(on, FleetError("the lease is gone"))
        )
    assert receiver.bodies[1]["reason"] == "the lease is gone"


def test_the_webhook_hears_nothing_of_a_rollout_that_did_not_begin(on, receiver):
    on = replace(on, config=RolloutConfig(webhook=receiver.url))

    def refused(_):
        raise FleetError("another is at work")

    with pytest.raises(FleetError):
        roll_for_audience(on, "fab deploy", quiet, None, False, refused)
    assert receiver.bodies == []


def test_a_webhook_that_fails_is_a_warning_without_its_secret(on, receiver):
    receiver.status = 500
    on = replace(on, config=RolloutConfig(webhook=receiver.url))
    report = roll_for_audience(on, "fab deploy", quiet, None, False, rollout(on))
    assert report.outcome.kind == "done" and "it answered 500" in report.warning
    assert "s3cret" not in report.warning


def test_a_webhook_that_hangs_costs_three_seconds(monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        sentence = Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/s3cret").post({})
    assert time.monotonic() - began < 4 and "was not told" in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    "url", ["ftp://x/s3cret", "s3cret", "http://[s3cret", "file:///etc/passwd"]
)
def test_a_webhook_that_is_no_url_is_a_sentence(url):
    sentence = Webhook(url).post({})
    assert sentence.endswith(".") and "s3cret" not in sentence


def test_the_secret_of_a_webhook_may_lie_in_a_file(receiver, tmp_path):
    file = tmp_path / "hook"
    file.write_text(f"{receiver.url}\n")
    assert Webhook("", str(file)).post({"a": 1}) == "" and receiver.bodies == [{"a": 1}]
    assert "cannot be read" in Webhook("", str(tmp_path / "none")).post({})


def test_the_page_lies_beside_the_journal_at_the_end(on):
    roll_for_audience(on, "fab deploy", quiet, None, False, rollout(on))
    page = on.journal.folder / "pages" / "r5.html"
    assert "toy/5 is in production" in page.read_text()


def test_a_page_that_cannot_be_written_is_a_warning(on):
    on.journal.folder.mkdir()
    (on.journal.folder / "pages").write_text("a file")
    report = roll_for_audience(on, "fab deploy", quiet, None, False, rollout(on))
    assert report.outcome.kind == "done" and "the page of r5 was not written" in report.warning


def test_a_terminal_shows_a_tree_of_hosts_and_steps():
    out = io.StringIO()
    console = Console(file=out, width=100, height=10, force_terminal=True, color_system=None)
    with LiveView("fab deploy", console) as view:
        for number in range(20):
            view.progress(f"host-{number:02}", "staged", "")
        view.progress("host-03", "load", "4 and 5 \x1b[2J[red]")
        plain = io.StringIO()
        Console(file=plain, width=100).print(view.tree())
    text = plain.getvalue()
    assert "fab deploy" in text and "host-03      staged load 4 and 5 \\x1b[2J[red]" in text
    assert "and 14 more" in text and "host-05" not in text


def test_progress_of_many_threads_loses_nothing():
    view = LiveView("fab deploy", Console(file=io.StringIO(), height=100))
    threads = [
        threading.Thread(target=lambda n=n: [view.progress(f"h{n}", str(s), "") for s in range(50)])
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    view.tree()
    for thread in threads:
        thread.join()
    out = io.StringIO()
    Console(file=out, width=100).print(view.tree())
    assert out.getvalue().count("49") == 20


def test_a_live_tree_is_for_terminals_alone(on, monkeypatch):
    lines = []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    roll_for_audience(on, "fab deploy", lambda *line: lines.append(line), None, True, rollout(on))
    assert lines == [("a", "load", "5")]
