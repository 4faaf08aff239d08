"""A canary's requests by Prometheus: read with this user's account, absent or odd without harm."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.credentials import PROMETHEUS, password_file
from conf.user import user_name
from serving.fleet.canary.analysis import judge_canary
from serving.fleet.canary.evidence import CanaryEvidence, ProbeSample, VersionEvidence
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.report.version_counts import prometheus_reader


def series(version: int, value: float, le: str = "") -> dict:
    labels = {"version": str(version), **({"le": le} if le else {})}
    return {"metric": labels, "value": [1.0, str(value)]}


def buckets(version: int, total: float, slow: float) -> list[dict]:
    fast = total - slow
    return [series(version, fast, "0.1"), series(version, fast, "0.5"),
            series(version, total, "1.0"), series(version, total, "+Inf")]  # fmt: skip


class Answering(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False
    result: object = ()
    delay_s = 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.queries: list[str] = []
        self.accounts: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_GET(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
        self.server.queries.append(query)
        self.server.accounts.append(self.headers["Authorization"])
        time.sleep(self.server.delay_s)
        result = self.server.result
        if isinstance(result, dict):
            result = result["failures" if "failures_total" in query else "buckets"]
        body = json.dumps({"data": {"result": result}}).encode()
        with suppress(OSError):  # who asked may have gone
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as made:
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield made
        made.shutdown()


def reading(server: Answering, passwords=None):
    client = PrometheusClient(f"http://127.0.0.1:{server.server_address[1]}", passwords)
    return prometheus_reader(client, "toy")(2, 1, 10.0)


def verdict(found):
    samples = tuple(ProbeSample(0.01) for _ in range(20))
    version = VersionEvidence({"a": samples})
    evidence = CanaryEvidence(version, version, prometheus=found)
    return judge_canary(evidence, CanaryLimits(min_probes=20))


def test_slow_requests_of_clients_condemn_a_canary(server, tmp_path):
    path = password_file(tmp_path, PROMETHEUS, user_name())
    path.parent.mkdir(parents=True)
    path.write_text("secret\n")
    server.result = {
        "buckets": buckets(2, 500.4, 100) + buckets(1, 5000.3, 10),
        "failures": [series(2, 1.2), series(1, 9.8)],
    }
    found = reading(server, tmp_path)
    assert (found.canary.answered, found.canary.failed) == (500, 1)
    assert found.baseline.within == {0.1: 4990, 0.5: 4990, 1.0: 5000}
    judged = verdict(found)
    assert judged.outcome == "fail"
    assert "requests of clients to the canary failed or took over" in judged.reasons[0]
    assert all(account and account.startswith("Basic ") for account in server.accounts)
    assert all('model="toy",version=~"2|1"}[60s]' in query for query in server.queries)


def test_equal_versions_pass(server):
    server.result = {"buckets": buckets(2, 500, 1) + buckets(1, 5000, 10), "failures": []}
    assert verdict(reading(server)).outcome == "pass"


@pytest.mark.parametrize(
    "result", [[], "text", 7, [7], [{"metric": 3}], [series(2, math.nan, "+Inf")], None]
)
def test_what_prometheus_does_not_have_is_said_and_harms_nothing(server, result):
    server.result = result
    judged = verdict(reading(server))
    assert judged.outcome == "pass"
    assert any("Prometheus was no judge" in reason for reason in judged.reasons)


def test_one_that_hangs_or_is_away_costs_seconds_at_most(server):
    server.delay_s, began = 4.0, time.monotonic()
    assert "did not answer" in reading(server).problem
    assert time.monotonic() - began < 3.5
    away = prometheus_reader(PrometheusClient("http://127.0.0.1:1"), "toy")(2, 1, 10.0)
    assert "did not answer" in away.problem
    assert verdict(away).outcome == "pass"


EDGES = st.text(max_size=4) | st.sampled_from(["+Inf", "0.1", "-", "nan"])
LABELS = st.fixed_dictionaries({"version": st.sampled_from(["1", "2", "x"]), "le": EDGES})


@given(st.lists(st.tuples(LABELS, st.floats(0, 1e9)), max_size=12))
def test_series_of_any_kind_are_read_or_left_out(found):
    class Client:
        def by_label(self, _: str):
            return found

    try:
        read = prometheus_reader(Client(), "toy")(2, 1, 10.0)
    except ValueError:
        pytest.fail("an odd label is no reason to end a rollout")
    assert read.canary is None or math.inf not in read.canary.within
