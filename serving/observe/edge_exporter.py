"""Metrics of the request log of one edge on a machine of its own, at /metrics.

    python3 -I -B ETC/edge-log --socket SOCKET --routes STATE/routes.map --region us-east \\
        --address 10.0.0.7 --port 19201 --latency-edges-s 0.1 0.3 1

A folder of `serving.edge_host.installation.edge_log_files`, run with the system's python and its
`prometheus_client`. The series are those of the site's own exporter (`serving.observe.exporter`),
of this edge's region alone; the models that have some are those of the edge's map.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

from serving.observe.collectors.edge_log import EdgeLog, listen

_POLL_S = 10.0


def routed_models(routes: Path) -> tuple[str, ...]:
    """The models of an edge's map; none where there is no map yet. Raises OSError."""
    lines = routes.read_text(encoding="utf-8").splitlines() if routes.exists() else []
    return tuple(line.split()[0] for line in lines if line.strip())


def main(argv: Sequence[str]) -> int:
    """Serve until a signal ends the process; 1 for a port or a socket that cannot be had."""
    parser = argparse.ArgumentParser(prog="edge-log", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--socket", type=Path, required=True, help="where HAProxy sends its log")
    parser.add_argument("--routes", type=Path, required=True, help="HAProxy's map of versions")
    parser.add_argument("--region", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-edges-s", type=float, nargs="+", required=True, metavar="S")
    options = parser.parse_args(argv)
    registry = CollectorRegistry()
    # Each line names its region: no host has to be known here. Prometheus names the edge.
    log = EdgeLog({"": options.region}, (), options.latency_edges_s, registry)
    try:
        # The port first: a second exporter ends here, and does not take the first one's socket.
        start_http_server(options.port, options.address, registry)
        listen(log, options.socket)
        while True:
            log.set_models(routed_models(options.routes))
            time.sleep(_POLL_S)
    except OSError as error:
        print(f"edge-log: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
