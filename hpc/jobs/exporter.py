"""The Slurm exporter: `python -m hpc.jobs.exporter [key=value ...]`.

Polls on a timer; a scrape only reads what the last poll saw, so that many scrapers cost Slurm
nothing. Serves /metrics, and /sd/train for Prometheus to find running jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from conf import ConfigError, compose
from hpc.jobs.poll import Look, look
from hpc.jobs.scheduler import ask

ADDRESS = "127.0.0.1"  # telemetry is for the Prometheus beside it, not for the network


class Latest(Collector):
    """The last look at Slurm, as Prometheus series."""

    def __init__(self) -> None:
        self.look = Look()

    def collect(self) -> Iterator[Metric]:
        """Called by each scrape; reads memory only."""
        now = self.look
        success = _gauge("collector_success", "1 if the collector's last poll worked", "collector")
        last = _gauge(
            "last_success_timestamp_seconds", "when this collector last worked", "collector"
        )
        took = _gauge("collector_duration_seconds", "how long the last poll took", "collector")
        for name, health in now.health.items():
            success.add_metric([name], float(health.success))
            took.add_metric([name], health.seconds)
            if health.last_success is not None:
                last.add_metric([name], health.last_success)
        yield from (success, last, took)
        if now.jobs is not None:
            jobs = _gauge("jobs", "jobs in the queue", "partition", "state")
            for (partition, state), count in now.jobs.items():
                jobs.add_metric([partition, state], count)
            yield jobs
        if now.nodes is not None:
            nodes = _gauge("nodes", "nodes of the cluster", "state")
            for state, count in now.nodes.items():
                nodes.add_metric([state], count)
            yield nodes
        yield GaugeMetricFamily(
            "lockgate_train_targets", "training jobs that serve metrics now", value=len(now.targets)
        )


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lockgate_slurm_{name}", text, labels=labels)


def serve(latest: Latest, port: int) -> ThreadingHTTPServer:
    """A server of `latest` on loopback; the caller runs it. Raises OSError for a taken port."""
    registry = CollectorRegistry()
    registry.register(latest)

    class Handler(BaseHTTPRequestHandler):
        """Two pages, both from memory."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(generate_latest(registry), CONTENT_TYPE_LATEST)
            elif path == "/sd/train":
                self._answer(json.dumps(list(latest.look.targets)).encode(), "application/json")
            else:
                self.send_error(404, "there is /metrics and /sd/train")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A line per scrape is noise."""

    return ThreadingHTTPServer((ADDRESS, port), Handler)


def main(argv: Sequence[str]) -> int:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(prog="python -m hpc.jobs.exporter", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two polls")
    options = parser.parse_args(argv)
    try:
        site = compose("site", options.overrides).site
        latest = Latest()
        server = serve(latest, int(site.ports.slurm_exporter))
    except (ConfigError, OSError) as error:
        print(f"lockgate-slurm-exporter: {error}", file=sys.stderr)
        return 2
    threading.Thread(target=server.serve_forever, daemon=True).start()
    variables = {"SLURM_CONF": os.environ.get("SLURM_CONF", str(site.paths.slurm_conf))}
    rest = threading.Event()
    try:
        while True:
            latest.look = look(
                latest.look, lambda command: ask(command, variables), Path(site.paths.runs)
            )
            rest.wait(options.interval)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
