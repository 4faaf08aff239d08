"""The release and edge exporter: `python -m serving.observe.exporter [key=value ...]`.

Serves /metrics on site.ports.release_exporter: what was released and rolled out, what each host
serves, and availability and latency of requests from the edges' log (UDP, site.ports.edge_log).
It reads, and changes nothing; a scrape costs no host anything.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from conf import ConfigError, compose
from serving.observe.collectors.edge_log import EdgeLog, listen
from serving.observe.collectors.snapshot import SiteSnapshot, SnapshotCollector, Sources, poll
from serving.observe.settings import load


def poll_forever(
    latest: SnapshotCollector, log: EdgeLog, every_s: float, end: threading.Event
) -> None:
    """Poll every `every_s` seconds until `end`; a complaint is printed when it changes."""
    said: list[str] = []
    while True:
        now, complaints = poll(latest.snapshot, latest.sources)
        latest.snapshot = now
        log.set_models(deployed(now))
        if complaints != said:
            for text in complaints or ["everything answers again"]:
                print(f"lockgate-exporter: {text}", file=sys.stderr, flush=True)
            said = complaints
        if end.wait(every_s):
            return


def deployed(now: SiteSnapshot) -> tuple[str, ...]:
    """The models that are or were in production: the closed set of the label `model`."""
    return tuple(now.ledger.production) if now.ledger else ()


def main(argv: Sequence[str]) -> int:
    """Serve until the process is told to end; 2 for a config that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m serving.observe.exporter", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    options = parser.parse_args(argv)
    disable_created_metrics()
    registry = CollectorRegistry()
    try:
        config = compose("observe", options.overrides)
        settings, site = load(config), config.site
        regions = {str(name): str(host.region) for name, host in site.hosts.items()}
        latest = SnapshotCollector(
            Sources(
                store=Path(site.paths.store),
                journal=Path(site.paths.journal),
                hosts={
                    str(name): (str(host.address), int(site.ports.triton_http))
                    for name, host in site.hosts.items()
                },
                regions=regions,
                timeout_s=settings.exporter.timeout_s,
            )
        )
        log = EdgeLog(regions, settings.exporter.latency_edges_s, registry)
        registry.register(latest)
        address = settings.control_address
        receiver, receiving = listen(log, address, int(site.ports.edge_log))
        server, serving = start_http_server(int(site.ports.release_exporter), address, registry)
    except (ConfigError, OSError) as error:
        print(f"lockgate-exporter: {error}", file=sys.stderr)
        return 2
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    poll_forever(latest, log, settings.exporter.poll_s, end)
    server.shutdown()
    serving.join()
    receiver.close()
    receiving.join(timeout=1.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
