"""Prometheus, Alertmanager, node_exporter, and Lockgate's own exporters.

What is scraped and what is alerted on is in `serving.observe`; here is only where it runs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from conf.credentials import ALERTMANAGER, PROMETHEUS, own_account
from conf.site_schema import Site
from scripts.box import hosts, passwords, slurm
from scripts.box.identity import REPO, environment
from scripts.box.probe import http_ok
from scripts.box.program import File, Folder, Port, Program
from serving.host.state import ANSWERS
from serving.observe import host_exporter
from serving.observe.prometheus_config import (
    alertmanager_yml,
    amtool_http_file,
    amtool_http_yml,
    amtool_yml,
    prometheus_yml,
    rules_yml,
)

LOOPBACK = "127.0.0.1"


def folders(site: Site) -> list[Folder]:
    user = site.users.observe
    amtool = _amtool(site).path.parent
    return [
        *(Folder(site.root / name, user, user) for name in ("prometheus", "alertmanager")),
        Folder(amtool.parent, user, user),
        Folder(amtool, user, user),
    ]


def _amtool(site: Site) -> File:
    """amtool run as observe finds Alertmanager and its account by itself."""
    path = site.root / "home" / "observe" / ".config" / "prometheus" / "amtool.yml"
    return File(path, amtool_yml(site))


def programs(site: Site) -> list[Program]:
    etc, user, ports = site.paths.etc, site.users.observe, site.ports
    prometheus = File(etc / "prometheus.yml", prometheus_yml(site))
    rules = File(etc / "rules.yml", rules_yml())
    alerts = File(etc / "alertmanager.yml", alertmanager_yml(site))
    amtool = (_amtool(site), File(amtool_http_file(site), amtool_http_yml(site)))
    return [
        Program(
            name="prometheus",
            argv=(
                "/usr/bin/prometheus",
                f"--config.file={prometheus.path}",
                f"--web.listen-address={LOOPBACK}:{ports.prometheus}",
                f"--web.config.file={passwords.web_config(site, PROMETHEUS)}",
                f"--storage.tsdb.path={site.root / 'prometheus'}",
                f"--storage.tsdb.retention.time={site.prometheus.retention}",
            ),
            user=user,
            files=(prometheus, rules),
            ports=(Port(LOOPBACK, ports.prometheus, "site.ports.prometheus"),),
            probe=http_ok(
                f"http://{LOOPBACK}:{ports.prometheus}/-/ready",
                partial(own_account, site.paths.passwords, PROMETHEUS),
            ),
            stop_wait_s=30,
        ),
        Program(
            name="alertmanager",
            argv=(
                "/usr/bin/prometheus-alertmanager",
                f"--config.file={alerts.path}",
                f"--web.listen-address={LOOPBACK}:{ports.alertmanager}",
                f"--web.config.file={passwords.web_config(site, ALERTMANAGER)}",
                f"--storage.path={site.root / 'alertmanager'}",
                "--cluster.listen-address=",  # alone: no gossip port
            ),
            user=user,
            files=(alerts, *amtool),
            ports=(Port(LOOPBACK, ports.alertmanager, "site.ports.alertmanager"),),
            probe=http_ok(
                f"http://{LOOPBACK}:{ports.alertmanager}/-/ready",
                partial(own_account, site.paths.passwords, ALERTMANAGER),
            ),
        ),
        Program(
            name="node_exporter",
            argv=(
                "/usr/bin/prometheus-node-exporter",
                f"--web.listen-address={LOOPBACK}:{ports.node_exporter}",
            ),
            user=user,
            ports=(Port(LOOPBACK, ports.node_exporter, "site.ports.node_exporter"),),
            probe=http_ok(f"http://{LOOPBACK}:{ports.node_exporter}/metrics"),
        ),
        *exporters(site),
        *host_exporters(site),
    ]


def exporters(site: Site) -> list[Program]:
    """Lockgate's own: the queue and the nodes, and releases, hosts and the edges' request log."""
    queue = Port(LOOPBACK, site.ports.slurm_exporter, "site.ports.slurm_exporter")
    releases = Port(LOOPBACK, site.ports.release_exporter, "site.ports.release_exporter")
    return [
        Program(
            name=name,
            argv=(str(REPO / ".venv/bin/python"), "-m", module),
            user=site.users.observe,
            env={**environment(site, "observe"), **slurm.client_env(site)},
            ports=(port,),
            probe=http_ok(f"http://{port}/metrics"),
            kills_group=True,
        )
        for name, module, port in (
            ("slurm-exporter", "hpc.jobs.exporter", queue),
            ("release-exporter", "serving.observe.exporter", releases),
        )
    ]


def host_exporters(site: Site) -> list[Program]:
    """On each serving host: its verification of itself, and its own golden questions."""
    text = Path(host_exporter.__file__).read_text(encoding="utf-8")
    made = []
    for host, spec in site.hosts.items():
        here = hosts.home(site, host)
        program = File(here / "etc" / "host_exporter.py", text, mode=0o755)
        port = Port(spec.address, site.ports.host_exporter, "site.ports.host_exporter")
        made.append(
            Program(
                name=f"metrics-{host}",
                argv=(
                    *("/usr/bin/python3", "-I", str(program.path)),
                    *("--state", str(here / "state" / "verified.json")),
                    *("--answers", str(here / "state" / ANSWERS)),
                    *("--address", spec.address, "--port", str(port.number)),
                ),
                user=site.users.observe,
                files=(program,),
                ports=(port,),
                probe=http_ok(f"http://{port}/metrics"),
            )
        )
    return made
