"""The page of a rollout: what it says, that nothing in the journal can change it, its size."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from serving.fleet.errors import FleetConfigError
from serving.fleet.report.pages import find_rollout, read_rollouts, write_page
from serving.fleet.report.prometheus import CLIENTS_FAULT, PrometheusClient
from serving.fleet.routing import Routing
from serving.observe.collectors.edge_log import CLIENT_REASONS
from tests.serving.fleet import journals

NOBODY = PrometheusClient("")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = (
    "<img src=x onerror=alert(1)>\"'</title><script>document.title='taken'</script>\x1b[2J\ud800"
)


class Dom(HTMLParser):
    """Every element as (tag, attributes, its own text), in order."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))
        if tag not in self.VOID:
            self.open.append(len(self.found) - 1)

    def handle_endtag(self, tag):
        if self.open and self.found[self.open[-1]][0] == tag:
            self.open.pop()

    def handle_data(self, data):
        for number in self.open:
            self.found[number][2].append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attributes, "".join(text))
            for name, attributes, text in self.found
            if name == tag
            and all((attributes.get(key) or "").split()[:1] == [value] or
                    attributes.get(key) == value for key, value in wanted.items())
        ]  # fmt: skip

    def text(self, tag: str, **wanted: str) -> str:
        return self.all(tag, **wanted)[0][1]


@pytest.fixture
def written(tmp_path, monkeypatch):
    found = journals.WrittenJournal(tmp_path, monkeypatch)
    found.production(4, "r4")
    found.at = 60
    found.deployment()
    return found


def page(written, rollout: str) -> str:
    path = write_page(written.journal, find_rollout(written.journal, rollout), NOBODY)
    assert path == written.journal.folder / "pages" / f"{rollout}.html"
    return path.read_text(encoding="utf-8")


def test_a_good_rollout_says_how_many_of_all_requests_failed(written):
    dom = Dom(page(written, "r5"))
    assert dom.text("h1") == "toy/5 is in production: 0 of 7,008 requests failed."
    facts = dom.text("dl", id="facts")
    assert "better recall in the west" in facts and "toy/4: 4,008, toy/5: 3,000" in facts
    lanes = [attributes["data-name"] for attributes, _ in dom.all("g", **{"class": "lane"})]
    assert lanes == ["us-east", "us-west", "use1-a", "use1-b", "usw2-a", "usw2-b"]
    assert "5% to 5, the rest to 4" in dom.text("svg") and "paused" in dom.text("table", id="notes")
    assert "not recorded: the site has no Prometheus" in dom.text("svg")
    assert "canary requests 160" in dom.text("table", id="analysis")
    assert dom.text("p", id="back") == (
        "fab rollback --model toy goes from toy/5 to toy/4, which came into production at "
        "2026-11-27 12:00:00 UTC. It is loaded and proven on 4 of 4 hosts: there one change of "
        "each edge's map brings it back."
    )


def test_an_undone_rollout_shows_its_undo_and_the_host_to_mend(written):
    written.failure(stuck=True)
    dom = Dom(page(written, "r6"))
    assert dom.text("h1", **{"class": "hurt"}).startswith("toy/6 failed, and not every host")
    assert "14 of 1,446 requests failed" in dom.text("h1")
    assert "its Triton does not answer." in dom.text("div", **{"class": "box"})
    undo = [attributes for attributes, _ in dom.all("rect") if "undo" in attributes["class"]]
    assert len(undo) >= 4  # two hosts and two edges
    assert len(dom.all("line", **{"class": "moment"})) == 1


def test_a_failed_rollout_that_came_back_says_what_serves(written):
    written.failure()
    dom = Dom(page(written, "r6"))
    assert dom.text("h1") == (
        "toy/6 failed, and toy/5 serves as before: 14 of 1,446 requests failed."
    )
    back = dom.text("p", id="back")
    assert back.startswith("fab rollback --model toy goes from toy/5 to toy/4")
    assert "proven on 2 of 4 hosts" in back  # version 6 came in the place of 4 on the others


def test_a_rollout_without_an_end_is_no_success(written):
    written.start("r7", 7, 5)
    dom = Dom(page(written, "r7"))
    assert dom.text("h1", **{"class": "open"}) == ("The deploy of toy/7 has no end in the journal.")


def test_a_killed_rollout_names_the_one_that_went_on(written):
    written.start("r7", 7, 5)
    written.start("r8", 7, 5, resumes="r7")
    killed, next_one = Dom(page(written, "r7")), Dom(page(written, "r8"))
    assert (
        killed.text("h1", **{"class": "open"}) == "The deploy of toy/7 was cut off, and r8 went on."
    )
    assert killed.text("p", id="reason") == "continued by deploy r8"
    assert "continued byr8" in killed.text("dl", id="facts")
    assert "continuesr7" in next_one.text("dl", id="facts")
    assert "continued by" not in next_one.text("dl", id="facts")


def test_a_rollout_in_the_ledger_is_done_without_its_last_line(written):
    written.start("r7", 7, 5)
    written.at += 3
    written.production(7, "r7")
    record = find_rollout(written.journal, "r7")
    assert (record.outcome, record.seconds) == ("done", 3.0)


def test_nothing_in_the_journal_is_markup(written):
    record = written.record
    written.start("r7", 7, 5, reason=HOSTILE, strategy=HOSTILE, action=HOSTILE, resumes=HOSTILE)
    record(1, "step", "r7", 7, host="use1-a", step=HOSTILE.replace("\ud800", ""), detail=HOSTILE)
    record(1, "routed", "r7", 7, edge=HOSTILE, routing=Routing(5).as_json())
    record(1, "analysis", "r7", 7, percent=5, verdict=HOSTILE, reasons=[HOSTILE],
           numbers={HOSTILE: {HOSTILE: HOSTILE}})  # fmt: skip
    record(1, HOSTILE.replace("\ud800", ""), "r7", 7, reason=HOSTILE)
    record(1, "incomplete", "r7", 7, reason=HOSTILE, stuck={HOSTILE: HOSTILE})
    text = page(written, "r7")
    dom = Dom(text)
    tags = {tag for tag, _, _ in dom.found}
    assert not tags & {"script", "img", "link", "a", "iframe", "object", "form"}
    assert not any(key.startswith("on") for _, attributes, _ in dom.found for key in attributes)
    assert "\x1b" not in text and "http" not in re.sub(r"http-equiv", "", text)
    assert "onerror=alert(1)" in dom.text("dl", id="facts")


@pytest.mark.parametrize(
    "content",
    [
        {"routing": 7}, {"routing": {"version": "x"}}, {"percent": "much", "numbers": [1]},
        {"versions": {"x": 1, "5": ["a", {}], "6": [1]}}, {"stuck": ["a"]}, {"waves": "all"},
        {"reason": {"a": 1}, "action": 7, "previous": True, "waves": [7, ["use1-a", 8]]},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "event", ["routed", "analysis", "counters", "started", "incomplete", "done", "paused"]
)
def test_an_event_of_another_kind_costs_itself_alone(written, event, content):
    written.start("r7", 7, 5)
    written.record(1, event, "r7", 7, **content)
    assert Dom(page(written, "r7")).all("svg")
    assert read_rollouts(written.journal)[0].outcome == "done"


def test_a_thousand_hosts_are_a_page_below_two_megabytes(tmp_path, monkeypatch):
    written = journals.WrittenJournal(tmp_path, monkeypatch)
    hosts = [f"host-{number:04}" for number in range(1000)]
    monkeypatch.setattr(type(written.journal), "record", lambda *_, **__: None)
    lines = []
    monkeypatch.setattr(
        type(written.journal), "record",
        lambda self, event, rollout, **content: lines.append({
            "at": written._now(), "who": "a@b", "rollout": rollout, "event": event, **content,
        }),
    )  # fmt: skip
    written.start("r5", 5, 4, waves=[hosts[:1], hosts[1:]])
    for host in hosts:
        for step in ("staged", "drain", "install", "load", "check", "checked", "undrain"):
            written.record(0.1, "step", "r5", 5, host=host, step=step, detail="x" * 100)
        if host != "host-0777":
            written.record(0.1, "step", "r5", 5, host=host, step="healthy", detail="0 failed")
    written.record(1, "incomplete", "r5", 5, reason="it is gone",
                   stuck={"host-0777": "its Triton does not answer"})  # fmt: skip
    import json

    (tmp_path / "rollouts.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    path = write_page(written.journal, find_rollout(written.journal, None), NOBODY)
    assert path.stat().st_size < 2 << 20
    dom = Dom(path.read_text(encoding="utf-8"))
    lanes = [attributes["data-name"] for attributes, _ in dom.all("g", **{"class": "lane"})]
    assert len(lanes) == 200 and "host-0777" in lanes
    assert "800 more hosts went the same way" in dom.text("svg")


def test_a_rollout_is_found_by_a_part_of_its_name_and_no_other(written):
    written.failure("r56")
    assert find_rollout(written.journal, None).rollout == "r56"
    assert find_rollout(written.journal, "6").rollout == "r56"
    assert find_rollout(written.journal, "r5").rollout == "r5"
    with pytest.raises(FleetConfigError, match="several rollouts: r5, r56"):
        find_rollout(written.journal, "r")
    with pytest.raises(FleetConfigError, match="no rollout of the journal"):
        find_rollout(written.journal, "zzz")


def test_a_clients_fault_is_one_thing_in_the_pages_and_in_the_log():
    assert CLIENTS_FAULT == CLIENT_REASONS


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize("rollout", ["r5", "r6"])
def test_a_browser_shows_the_page_without_a_script_or_a_network(written, tmp_path, rollout):
    written.failure()
    page(written, rollout)
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/pages/{rollout}.html"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    dom = Dom(done.stdout)
    assert dom.text("h1").startswith("toy/") and dom.text("title") + "." == dom.text("h1")
    assert len(dom.all("g", **{"class": "chart"})) == 2
    assert len(dom.all("rect", **{"class": "seg"})) > 15
    assert dom.text("p", id="back").startswith("fab rollback --model toy goes from toy/5")
