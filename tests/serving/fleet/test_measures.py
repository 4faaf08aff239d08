"""The numbers of a rollout's page by a Prometheus on loopback that answers what a test sets."""

from __future__ import annotations

import http.server
import json
import re
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from serving.fleet.report.measures import measures
from serving.fleet.report.page import rollout_page
from serving.fleet.report.pages import find_rollout
from serving.fleet.report.prometheus import PrometheusClient
from tests.serving.fleet import journals


@pytest.fixture
def prometheus():
    """`.answer(kind, query)` gives the result; `.seen` has the queries and the accounts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self.server.seen.append((query, self.headers.get("Authorization")))
            body = self.server.answer(parts.path.rpartition("/")[2], query)
            body = body if isinstance(body, bytes) else json.dumps({"data": {"result": body}})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else body.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answer = [], lambda *_: []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A rollout of 10 seconds whose journal counted nothing."""
    written = journals.WrittenJournal(tmp_path / "journal", monkeypatch)
    written.start("r5", 5, 4)
    written.record(10, "done", "r5", 5)
    return find_rollout(written.journal, "r5")


def over_time(kind: str, query: dict[str, str]):
    if kind == "query_range":
        value = "0.25" if "lockgate_request_failures_total" in query["query"] else "0.125"
        return [{"values": [[journals.BEGAN + s, value] for s in range(10)]}]
    return [{"value": [1.0, "12.4" if "failures" in query["query"] else "7008.3"]}]


def test_error_rate_and_latency_are_drawn_over_the_lanes(prometheus, record):
    prometheus.answer = over_time
    found = measures(record, PrometheusClient(prometheus.url))
    page = rollout_page(record, found, "", 0.0)
    lines = re.findall(r'<polyline class="line" points="([^"]+)"', page)
    assert [len(line.split()) for line in lines] == [10, 10]
    assert "25 %" in page and "125 ms" in page
    assert "12 of 7,008 requests failed" in page and "estimated by Prometheus" in page
    assert all('model="toy"' in query["query"] for query, _ in prometheus.seen)


def test_the_account_of_the_user_is_used(prometheus, record, tmp_path, monkeypatch):
    from conf.user import user_name

    file = tmp_path / "passwords" / "prometheus" / user_name()
    file.parent.mkdir(parents=True)
    file.write_text("secret")
    measures(record, PrometheusClient(prometheus.url, tmp_path / "passwords"))
    assert all(account.startswith("Basic ") for _, account in prometheus.seen)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"no json", b"[]", b'{"data": {"result": 7}}', b'{"data": {"result": [7, {}]}}',
        b'{"data": {"result": [{"values": [["x", "y"], [1], 7, [1, "NaN"], [1, "Inf"]]}]}}',
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_an_answer_of_another_kind_is_not_recorded(prometheus, record, answer):
    prometheus.answer = lambda *_: answer
    found = measures(record, PrometheusClient(prometheus.url))
    assert not found.errors.points and found.errors.missing and found.traffic is None
    assert "not recorded: Prometheus" in rollout_page(record, found, "", 0.0)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "nonsense", "http://[::1"])
def test_a_prometheus_that_is_not_there_is_a_sentence(record, url):
    found = measures(record, PrometheusClient(url))
    assert "Prometheus did not answer" in found.p99_s.missing
