"""The release exporter against a real HTTP host, a real journal and store, and as a process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from conf import repo_root
from conf.site_placement import ModelPlacement
from serving.artifact import store
from serving.fleet.rollout.holder import LEASE, Holder, write_lease
from serving.fleet.rollout.journal import Journal
from serving.fleet.rollout.records import Before
from serving.observe.collectors.release_collector import lease_is_held, read_ledger, read_releases
from serving.observe.collectors.snapshot import SiteSnapshot, SnapshotCollector, Sources, poll_site
from serving.observe.collectors.triton_collector import ServedModel, poll_fleet, poll_host
from tests.serving.artifact.conftest import make_manifest, write_files


@dataclass
class Host:
    """A Triton as far as a reader of its HTTP can tell: models with their versions' readiness."""

    port: int = 0
    models: dict[str, dict[int, bool]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    hang: threading.Event | None = None
    nonsense: bool = False


@pytest.fixture
def host() -> Iterator[Host]:
    state = Host()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            state.asked.append(self.path)
            if state.hang:
                state.hang.wait(30)
            model, _, rest = self.path.removeprefix("/v2/models/").partition("/versions/")
            versions = state.models.get(model)
            if state.nonsense:
                return self._say(200, "<html>")
            if versions is None:
                return self._say(400, '{"error":"unknown model"}')
            if rest:
                ready = versions.get(int(rest.removesuffix("/ready")), False)
                return self._say(200 if ready else 400, "")
            return self._say(200, json.dumps({"name": model, "versions": [*map(str, versions)]}))

        def _say(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield state
    if state.hang:
        state.hang.set()
    server.shutdown()
    server.server_close()


def test_what_a_host_serves(host: Host) -> None:
    host.models = {"flights": {9: True, 10: True, 11: False}, "lm": {1: False}, "empty": {}}
    found = poll_host("127.0.0.1", host.port, ("flights", "lm", "empty", "gone"), 5.0)
    assert found == {
        "flights": ServedModel("ready", "10"),  # the highest that is ready, as numbers
        "lm": ServedModel("loading"),
        "empty": ServedModel("loading"),
        "gone": ServedModel("absent"),
    }


def test_a_host_that_hangs_is_dead_or_talks_nonsense_is_unreachable(host: Host) -> None:
    host.models = {"flights": {1: True}}
    dead = {"dead": ("127.0.0.1", 1), "alive": ("127.0.0.1", host.port)}
    assert poll_fleet(dead, ("flights",), 5.0) == {
        ("dead", "flights"): ServedModel("unreachable"),
        ("alive", "flights"): ServedModel("ready", "1"),
    }
    host.nonsense = True
    assert poll_host("127.0.0.1", host.port, ("flights",), 5.0)["flights"].state == "unreachable"
    host.nonsense, host.hang = False, threading.Event()
    assert poll_host("127.0.0.1", host.port, ("flights",), 0.2)["flights"].state == "unreachable"


ABOUT = {"model": "flights", "version": 2}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Version 1, then 2 was deployed; a rollout of 3 was undone; a person went back to 1."""
    made = Journal(tmp_path / "journal")
    made.record("started", "r1", model="flights", version=1)
    made.record("step", "r1", model="flights", version=1, host="a", step="staged", detail="")
    made.record("done", "r1", model="flights", version=1)
    made.enter("deploy", "r1", model="flights", version=1, digest="d1", previous=None)
    made.record("started", "r2", **ABOUT)
    made.record("done", "r2", **ABOUT)
    made.enter("deploy", "r2", **ABOUT, digest="d2", previous=1)
    made.record("started", "r3", model="flights", version=3)
    made.record("undoing", "r3", model="flights", version=3, reason="x", hosts=["a"])
    made.record("rolled-back", "r3", model="flights", version=3, reason="x")
    made.enter("rollback", "r4", model="flights", version=1, digest="d1", previous=2)
    return made


def test_the_ledger_as_numbers(journal: Journal) -> None:
    ledger = read_ledger(journal.folder)
    assert (ledger.production["flights"].version, ledger.production["flights"].digest) == (
        "1",
        "d1",
    )
    assert {end: n for (_, end), n in ledger.rollouts.items()} == {
        "done": 2, "prepared": 0, "refused": 0, "rolled-back": 1, "incomplete": 0,
        "manual-intervention": 0,
    }  # fmt: skip
    assert ledger.rollbacks == {("flights", "person"): 1, ("flights", "rollout"): 1}
    assert ledger.unfinished == {"flights": False}
    assert set(ledger.verified) == {("flights", "a")}
    assert abs(ledger.production["flights"].since - time.time()) < 600


def test_a_host_on_standby_is_a_number_until_it_is_admitted(journal: Journal) -> None:
    journal.record("standby", "host-1", host="a", reason="night")
    journal.record("standby", "host-1", host="b", reason="night")
    journal.record("admitted", "host-2", host="b", reason="day")
    assert read_ledger(journal.folder).standby == {"a"}


def test_a_rollout_is_in_progress_only_while_somebody_holds_the_lock(journal: Journal) -> None:
    journal.record("started", "r5", **ABOUT)
    journal.record("before", "r5", **ABOUT, host="a", before=Before((1,), None, "ready").as_json())
    far = Holder("t", "eve@far", "deploy flights/2", "another boot", 1, "5", -1e9, 7, 120.0)
    lease = journal.folder / LEASE
    write_lease(lease, far)
    sign = None
    for now, held in [(50.0, True), (55.0, True), (171.0, False)]:  # no number moved: it is dead
        ledger = read_ledger(journal.folder, sign, now)
        sign = ledger.lease
        assert ledger.unfinished == {"flights": True} and ledger.in_progress == {"flights": held}
        assert lease_is_held(sign, now) is held
    write_lease(lease, replace(far, renewed=8))
    assert read_ledger(journal.folder, sign, 172.0).in_progress == {"flights": True}
    write_lease(lease, replace(far, reason="disks"))  # a person's lock rolls nothing out
    assert read_ledger(journal.folder, sign, 173.0).in_progress == {"flights": False}
    lease.unlink()
    assert read_ledger(journal.folder, sign, 174.0).in_progress == {"flights": False}


def test_a_half_written_line_is_no_event(journal: Journal) -> None:
    before = read_ledger(journal.folder)
    for name in ("ledger.jsonl", "rollouts.jsonl"):
        with (journal.folder / name).open("a") as stream:
            stream.write('{"model":"flights","act')
    assert read_ledger(journal.folder).rollouts == before.rollouts


ODD = [b"7", b'{"model":"m"}', b"\xff\xfe{}", b"[" * 100_000, "{\u2028}".encode(), b"{}\x85"]


def test_a_broken_line_is_counted_and_the_rest_is_shown(
    journal: Journal, host: Host, tmp_path: Path
) -> None:
    before = read_ledger(journal.folder)
    for name in ("ledger.jsonl", "rollouts.jsonl"):
        path = journal.folder / name
        path.write_bytes(b"\n".join([*ODD, path.read_bytes()]))
    found = read_ledger(journal.folder)
    assert (found.production, found.rollouts) == (before.production, before.rollouts)
    assert found.broken == {"ledger.jsonl": len(ODD), "rollouts.jsonl": len(ODD)}
    latest = SnapshotCollector(sources(tmp_path, a=host.port))
    latest.snapshot, complaints = poll_site(SiteSnapshot(), latest.sources)
    assert not [text for text in complaints if text.startswith("ledger")]
    assert {
        labels["file"]: value for labels, value in series(latest)["lockgate_journal_broken_lines"]
    } == {"ledger.jsonl": len(ODD), "rollouts.jsonl": len(ODD)}


def test_releases_by_their_reports(tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    for number, outcome in enumerate(["released", "refused", "refused", "unchanged"]):
        content = {"model": "flights", "outcome": outcome}
        (reports / f"{number}.json").write_text(json.dumps(content))
    (reports / "torn.json").write_text("{")
    assert read_releases(tmp_path) == {("flights", "released"): 1, ("flights", "refused"): 2}
    with pytest.raises(FileNotFoundError):
        read_releases(tmp_path / "nowhere")


def sources(tmp_path: Path, **hosts: int) -> Sources:
    (tmp_path / "store").mkdir(exist_ok=True)
    return Sources(
        store=tmp_path / "store",
        journal=tmp_path / "journal",
        hosts={name: ("127.0.0.1", port) for name, port in hosts.items()},
        regions=dict.fromkeys(hosts, "us-east"),
        timeout_s=2.0,
    )


def series(latest: SnapshotCollector) -> dict[str, list[tuple[dict[str, str], float]]]:
    registry = CollectorRegistry()
    registry.register(latest)
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_a_snapshot_becomes_series(journal: Journal, host: Host, tmp_path: Path) -> None:
    host.models = {"flights": {1: True}}
    latest = SnapshotCollector(sources(tmp_path, a=host.port, b=1))
    latest.snapshot, complaints = poll_site(SiteSnapshot(), latest.sources)
    assert complaints == []
    found = series(latest)
    assert found["lockgate_model_desired_info"] == [
        ({"model": "flights", "version": "1", "digest": "d1"}, 1.0)
    ]
    served = {"model": "flights", "version": "1", "digest": "", "host": "a", "region": "us-east"}
    assert found["lockgate_model_served_info"] == [(served, 1.0)]
    states = {(s["host"], s["state"]) for s, on in found["lockgate_model_state"] if on}
    assert states == {("a", "ready"), ("b", "unreachable")}
    assert ({"model": "flights", "by": "person"}, 1.0) in found["lockgate_rollbacks_total"]
    assert {s["collector"] for s, on in found["lockgate_collector_success"] if on} == {
        "ledger", "releases", "fleet",
    }  # fmt: skip


def test_a_model_is_not_missed_where_it_has_no_place(
    journal: Journal, host: Host, tmp_path: Path
) -> None:
    host.models = {"flights": {1: True}}
    polled = sources(tmp_path, a=host.port, b=1)
    for names, seen in ((("a",), {"a"}), (("b",), {"a", "b"}), (("a", "b"), {"a", "b"})):
        placed = replace(polled, placement={"flights": ModelPlacement(names)})
        latest = SnapshotCollector(placed)
        latest.snapshot, complaints = poll_site(SiteSnapshot(), placed)
        assert complaints == []
        assert {s["host"] for s, on in series(latest)["lockgate_model_state"] if on} == seen


def test_a_served_version_shows_its_digest_and_its_expiry(
    journal: Journal, host: Host, tmp_path: Path
) -> None:
    host.models = {"flights": {1: True}}
    latest = SnapshotCollector(sources(tmp_path, a=host.port))
    staged = write_files(store.stage(tmp_path / "store", "v1"))
    manifest = make_manifest(staged, 1)
    store.publish(tmp_path / "store", staged, manifest, b"a signature")
    for _ in range(2):  # the second poll reads no manifest again
        latest.snapshot, _ = poll_site(latest.snapshot, latest.sources)
    found = series(latest)
    assert [labels["digest"] for labels, _ in found["lockgate_model_served_info"]] == [
        manifest.digest
    ]
    expires = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert found["lockgate_model_signature_expires_timestamp_seconds"] == [
        ({"model": "flights", "version": "1"}, expires)
    ]


def test_a_scrape_asks_nobody(journal: Journal, host: Host, tmp_path: Path) -> None:
    host.models = {"flights": {1: True}}
    latest = SnapshotCollector(sources(tmp_path, a=host.port))
    latest.snapshot, _ = poll_site(SiteSnapshot(), latest.sources)
    asked = len(host.asked)
    assert asked == 2
    for _ in range(5):
        series(latest)
    assert len(host.asked) == asked


def test_what_failed_has_no_series_and_says_when_it_last_worked(
    journal: Journal, host: Host, tmp_path: Path
) -> None:
    host.models = {"flights": {1: True}}
    latest = SnapshotCollector(sources(tmp_path, a=host.port))
    latest.snapshot, _ = poll_site(SiteSnapshot(), latest.sources, lambda: 1000.0)
    shutil.move(tmp_path / "journal", tmp_path / "away")
    host.nonsense = True
    latest.snapshot, complaints = poll_site(latest.snapshot, latest.sources, lambda: 2000.0)
    assert [text.split(":")[0] for text in complaints] == ["ledger", "fleet"]
    found = series(latest)
    for name in ("model_desired_info", "rollouts_total", "model_served_info", "model_state"):
        assert f"lockgate_{name}" not in found
    success = {s["collector"]: on for s, on in found["lockgate_collector_success"]}
    assert success == {"ledger": 0.0, "releases": 1.0, "fleet": 0.0}
    last = found["lockgate_collector_last_success_timestamp_seconds"]
    assert {s["collector"]: at for s, at in last} == {
        "ledger": 1000.0, "releases": 2000.0, "fleet": 1000.0,
    }  # fmt: skip
    shutil.move(tmp_path / "away", tmp_path / "journal")
    host.nonsense = False
    latest.snapshot, complaints = poll_site(latest.snapshot, latest.sources)
    assert complaints == [] and "lockgate_model_served_info" in series(latest)


def test_many_rollouts_make_no_more_series(journal: Journal, host: Host, tmp_path: Path) -> None:
    host.models = {"flights": {1: True}}
    latest = SnapshotCollector(sources(tmp_path, a=host.port))

    def labels() -> list[str]:
        latest.snapshot, _ = poll_site(latest.snapshot, latest.sources)
        return sorted(
            f"{name}{sorted(one)}" for name, rows in series(latest).items() for one, _ in rows
        )

    before = labels()
    for number in range(200):
        about = {"model": "flights", "version": number + 10}
        journal.record("started", f"20261123-{number:06d}-flights", **about)
        journal.record("done", f"20261123-{number:06d}-flights", **about)
        journal.enter("deploy", f"x{number}", **about, digest=f"{number:064x}", previous=None)
    assert labels() == before
    text = json.dumps([one for rows in series(latest).values() for one, _ in rows])
    assert not re.search(r"\brun\b|job_id|20261123", text)


def free_ports(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_process_serves_reads_the_log_and_ends_when_told(
    journal: Journal, host: Host, tmp_path: Path
) -> None:
    host.models = {"flights": {1: True}}
    (tmp_path / "store").mkdir()
    http, socket_path = free_ports(socket.SOCK_STREAM), tmp_path / "edges.sock"
    overrides = [
        f"site.ports.release_exporter={http}",
        f"site.paths.edge_log={socket_path}",
        f"site.ports.triton_http={host.port}",
        "site.hosts.use1-a.address=127.0.0.1",
        "observe.exporter.poll_s=0.2",
    ]
    argv = [sys.executable, "-m", "serving.observe.exporter", *overrides]
    environment = {**os.environ, "LOCKGATE_SITE": str(tmp_path), "PYTHONPATH": str(repo_root())}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        page = wait_for(
            process, http, 'lockgate_requests_total{model="flights",region="us-east"} 0.0'
        )
        assert "_created" not in page
        line = {"region": "us-east", "path": "/v2/models/flights/infer", "status": 200,
                "term": "----", "srv": "a", "ta_ms": 3}  # fmt: skip
        with socket.socket(socket.AF_UNIX) as edge:
            edge.connect(str(socket_path))
            edge.sendall(json.dumps(line).encode() + b"\n")
        wait_for(process, http, 'lockgate_requests_total{model="flights",region="us-east"} 1.0')
        labels = 'host="use1-a",model="flights",region="us-east",state="ready"'
        wait_for(process, http, f"lockgate_model_state{{{labels}}} 1.0")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0 and said == ""


def wait_for(process: subprocess.Popen[str], port: int, text: str) -> str:
    end, page = time.monotonic() + 60, ""
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
                page = reply.read().decode()
        except OSError:
            pass
        if text in page:
            return page
        time.sleep(0.1)
    process.kill()
    _, said = process.communicate()
    raise AssertionError(f"{text} did not appear in:\n{page}\n{said}")


def test_a_wrong_override_is_a_sentence(tmp_path: Path) -> None:
    argv: list[Any] = [sys.executable, "-m", "serving.observe.exporter", "observe.slo.latency=2"]
    done = subprocess.run(argv, cwd=repo_root(), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "slo.latency" in done.stderr
    assert "Traceback" not in done.stderr
