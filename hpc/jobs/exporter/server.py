"""The Slurm exporter: `python -m hpc.jobs.exporter [key=value ...]`.

Polls on a timer; a scrape only reads what the last poll saw, so that many scrapers cost Slurm
nothing. Serves /metrics, and /sd/train for Prometheus to find running jobs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from conf import ConfigError, compose
from hpc.jobs.exporter.poll import QueueSnapshot, poll_slurm
from hpc.jobs.slurm.commands import query

ADDRESS = "127.0.0.1"  # telemetry is for the Prometheus beside it, not for the network
PROGRAM = "lockgate-slurm-exporter"


class QueueCollector(Collector):
    """The last poll of Slurm, as Prometheus series."""

    def __init__(self) -> None:
        self.snapshot = QueueSnapshot()

    def collect(self) -> Iterator[Metric]:
        """Called by each scrape; reads memory only."""
        now = self.snapshot
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
            "lockgate_runs_unreadable",
            "runs with a file that is there and cannot be used; the log names them",
            value=sum(bool(run.reasons) for run in now.runs.values()),
        )
        yield GaugeMetricFamily(
            "lockgate_train_targets", "training jobs that serve metrics now", value=len(now.targets)
        )


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"lockgate_slurm_{name}", text, labels=labels)


class QuietHandler(WSGIRequestHandler):
    """A handler without a log line per scrape."""

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


def make_app(collector: QueueCollector) -> Callable[..., Iterable[bytes]]:
    """The WSGI application: /metrics, and /sd/train with http_sd groups, both from memory.

    https://prometheus.io/docs/prometheus/latest/http_sd/
    """
    registry = CollectorRegistry()
    registry.register(collector)
    metrics = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start_response)
        found = environ["PATH_INFO"] == "/sd/train"
        kind = "application/json" if found else "text/plain"
        start_response("200 OK" if found else "404 Not Found", [("Content-Type", kind)])
        groups = json.dumps(list(collector.snapshot.targets))
        return [groups.encode() if found else b"there is /metrics and /sd/train\n"]

    return app


def make_exporter(collector: QueueCollector, port: int) -> WSGIServer:
    """A server of `collector` on loopback, not yet running. Raises OSError for a taken port."""
    return make_server(ADDRESS, port, make_app(collector), ThreadingWSGIServer, QuietHandler)


def main(argv: Sequence[str]) -> int:
    """Poll and serve until the process ends; 2 when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m hpc.jobs.exporter", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two polls")
    options = parser.parse_args(argv)
    logging.basicConfig(format=f"{PROGRAM}: %(message)s", level=logging.INFO, stream=sys.stdout)
    try:
        site = compose("site", options.overrides).site
        collector = QueueCollector()
        server = make_exporter(collector, int(site.ports.slurm_exporter))
    except (ConfigError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    threading.Thread(target=server.serve_forever, daemon=True).start()
    variables = {"SLURM_CONF": os.environ.get("SLURM_CONF", str(site.paths.slurm_conf))}
    runs = Path(site.paths.runs)
    rest = threading.Event()
    try:
        while True:
            collector.snapshot = poll_slurm(
                collector.snapshot, lambda command: query(command, variables), runs
            )
            rest.wait(options.interval)
    except KeyboardInterrupt:
        return 0
