"""`scripts/site status`: every daemon with its state and the outcome of its probe."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from conf.site_schema import Site
from scripts.box.preflight import refuse_without_root
from scripts.box.programs import all_programs
from scripts.box.state import Daemon, observe


def status(site: Site) -> list[Daemon]:
    """Every daemon of the box, probed. Raises Refusal without root: the supervisors answer root."""
    refuse_without_root()
    return observe(site, all_programs(site))


def as_json(site: Site, daemons: Sequence[Daemon]) -> str:
    """One object: the site, whether all is healthy, every daemon, the addresses to open."""
    return json.dumps(
        {
            "site": str(site.root),
            "healthy": all(daemon.healthy for daemon in daemons),
            "daemons": [
                {
                    "name": daemon.program.name,
                    "state": daemon.state.lower(),
                    "healthy": daemon.healthy,
                    "fault": daemon.fault,
                    "pid": daemon.pid,
                    "user": daemon.program.user,
                    "since": daemon.since,
                    "ports": [str(port) for port in daemon.program.ports],
                    "log": str(daemon.log),
                }
                for daemon in daemons
            ],
            "urls": urls(site),
        },
        indent=2,
    )


def urls(site: Site) -> dict[str, str]:
    """Addresses for a browser, and those that clients send requests to."""
    found = {
        "mlflow": site.mlflow_uri,
        "prometheus": site.prometheus_url,
        "alertmanager": f"http://127.0.0.1:{site.ports.alertmanager}",
    }
    for name, edge in site.edges.items():
        found[name] = edge.url
    return found


def show(site: Site, daemons: Sequence[Daemon], console: Console) -> None:
    """The same as a table; faults below it in full."""
    table = Table(box=None, pad_edge=False)
    for column in ("daemon", "state", "pid", "up", "ports", "log"):
        table.add_column(column, no_wrap=True)
    for daemon in daemons:
        state = "healthy" if daemon.healthy else daemon.state.lower()
        color = "green" if daemon.healthy else "red"
        if daemon.off:
            state = "off until needed"
        if daemon.fault and daemon.state == "RUNNING":
            state = "sick"
        log = str(daemon.log).removeprefix(f"{site.root}/")
        table.add_row(
            daemon.program.name, f"[{color}]{state}[/]", str(daemon.pid or "-"), _age(daemon),
            _ports(daemon), log,
        )  # fmt: skip
    console.print(table)
    for daemon in daemons:
        if daemon.fault:
            console.print(f"{daemon.program.name}: {daemon.fault}", markup=False, highlight=False)
    healthy = sum(daemon.healthy for daemon in daemons)
    console.print(f"{healthy} of {len(daemons)} healthy; all state under {site.root}")


def _ports(daemon: Daemon) -> str:
    """`127.0.0.11:18000,18001`: a program of ours listens on one address."""
    ports = daemon.program.ports
    return f"{ports[0].address}:{','.join(str(port.number) for port in ports)}" if ports else "-"


def _age(daemon: Daemon) -> str:
    if not daemon.pid:
        return "-"
    seconds = max(0, int(time.time()) - daemon.since)
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m"
