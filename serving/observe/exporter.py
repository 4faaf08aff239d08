"""The release and edge exporter: `python -m serving.observe.exporter [key=value ...]`.

Serves /metrics on site.ports.release_exporter: releases and rollouts, the served versions of each
host, and availability and latency of requests from the edges' log (site.paths.edge_log).
It reads, and changes nothing; a scrape costs no host anything.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from conf import ConfigError, compose
from conf.errors import FAILED, MISTAKE
from conf.site_schema import site_config
from serving.observe.collectors.edge_log import EdgeLog, listen
from serving.observe.collectors.snapshot import SiteSnapshot, SnapshotCollector, Sources, poll_site
from serving.observe.settings import read_settings

PROGRAM = "lockgate-exporter"
log = logging.getLogger(__name__)


def poll_forever(
    latest: SnapshotCollector, edge_log: EdgeLog, every_s: float, end: threading.Event
) -> None:
    """Poll every `every_s` seconds until `end`; failures are logged when they change."""
    logged: list[str] = []
    while True:
        now, failures = poll_site(latest.snapshot, latest.sources)
        latest.snapshot = now
        edge_log.set_models(deployed(now))
        if failures != logged:
            for text in failures:
                log.warning(text)
            if not failures:
                log.info("every collector works again")
            logged = failures
        if end.wait(every_s):
            return


def deployed(now: SiteSnapshot) -> tuple[str, ...]:
    """The models that are or were in production: the closed set of the label `model`."""
    return tuple(now.ledger.production) if now.ledger else ()


def main(argv: Sequence[str]) -> int:
    """Serve until a signal ends the process; 2 for a wrong config, 1 for a taken port."""
    parser = argparse.ArgumentParser(prog="python -m serving.observe.exporter", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as in site=box")
    options = parser.parse_args(argv)
    logging.basicConfig(format=f"{PROGRAM}: %(message)s", level=logging.INFO)  # to stderr
    disable_created_metrics()
    registry = CollectorRegistry()
    try:
        config = compose("observe", options.overrides)
        settings, site = read_settings(config), config.site
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
                placement=site_config(config).placement,
            )
        )
        edge_log = EdgeLog(
            regions, map(str, site.edges), settings.exporter.latency_edges_s, registry
        )
        registry.register(latest)
        address = settings.control_address
        # The port first: a second exporter ends here, and does not take the first one's socket.
        server, serving = start_http_server(int(site.ports.release_exporter), address, registry)
        receiver, receiving = listen(edge_log, Path(site.paths.edge_log))
    except (ConfigError, OSError) as error:
        log.error(error)
        return MISTAKE if isinstance(error, ConfigError) else FAILED
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    poll_forever(latest, edge_log, settings.exporter.poll_s, end)
    server.shutdown()
    serving.join()
    receiver.close()
    receiving.join(timeout=1.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
