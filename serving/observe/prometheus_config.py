"""The configuration of Prometheus and Alertmanager of a site, as text: pure functions of the site.

`prometheus.yml`, `rules.yml` and `alertmanager.yml` lie in one folder; Prometheus finds the rules
beside its own file. YAML is dumped from plain values, so an odd name cannot break a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from conf.credentials import ALERTMANAGER, PROMETHEUS, password_file
from conf.site_checks import host_port
from conf.site_schema import Site, edge_region
from serving.observe.settings import Settings, read_settings

RULES_FILE = "rules.yml"
TRAINING_METRICS = "lockgate_train_.*"
"""All that a training job may export."""
EDGE_LOG = "edge_log"
EDGE_LOG_METRICS = (
    "lockgate_(version_)?request_.*_(total|bucket|count|sum)|lockgate_requests_total"
    "|lockgate_edge_log_lines_total"
)
"""All that the exporter on an edge's own machine may export."""


def prometheus_yml(site: Site, settings: Settings | None = None) -> str:
    """The Prometheus 2.42 configuration of `site`.

    `settings` are those of conf/observe.yaml where not given. Raises `ConfigError` for those.
    """
    settings = settings or read_settings()
    control, ports = settings.control_address, site.ports
    jobs = [
        _own_job(site, PROMETHEUS, ports.prometheus, settings),
        _own_job(site, ALERTMANAGER, ports.alertmanager, settings),
        _job("node", _node_targets(site, settings), settings),
        _job("slurm", [_target(control, ports.slurm_exporter)], settings),
        _job("lockgate", [_target(control, ports.release_exporter)], settings),
        _job("triton", _host_targets(site, site.ports.triton_metrics), settings),
        _job("host", _host_targets(site, site.ports.host_exporter), settings),
        _job("haproxy", _edge_targets(site), settings),
        *_edge_log_jobs(site, settings),
        _training_job(f"http://{control}:{ports.slurm_exporter}/sd/train", settings),
    ]
    return _yaml(
        {
            "global": {
                "scrape_interval": f"{settings.scrape.interval_s}s",
                "scrape_timeout": f"{settings.scrape.timeout_s}s",
                "evaluation_interval": f"{settings.scrape.interval_s}s",
                "external_labels": {"site": str(site.name)},
            },
            "rule_files": [RULES_FILE],
            "alerting": {
                "alertmanagers": [
                    {
                        "static_configs": [_target(control, ports.alertmanager)],
                        **_account(site, ALERTMANAGER),
                    },
                ]
            },
            "scrape_configs": jobs,
        }
    )


def rules_yml(settings: Settings | None = None) -> str:
    """Every recording rule and alert (see `serving.observe.rules.groups`), for `RULES_FILE`."""
    from serving.observe.rules.groups import groups

    return _yaml({"groups": groups(settings or read_settings())})


def alertmanager_yml(site: Site, settings: Settings | None = None) -> str:
    """The Alertmanager 0.25 configuration: pages at once, tickets in batches, notes nowhere.

    `severity` is page, ticket or none. During a rollout (`ReleaseInProgress`) the tickets about
    versions of that model are held back, because they are its intended effects; pages never.
    """
    settings = settings or read_settings()
    receivers: list[dict[str, Any]] = [{"name": "nobody"}, {"name": "page"}, {"name": "ticket"}]
    if settings.webhook:
        for receiver in receivers[1:]:
            receiver["webhook_configs"] = [{"url": settings.webhook, "send_resolved": True}]
    return _yaml(
        {
            "route": {
                "receiver": "ticket",
                "group_by": ["alertname", "model", "region"],
                "group_wait": "30s",
                "group_interval": "5m",
                "repeat_interval": "24h",
                "routes": [
                    {"receiver": "nobody", "matchers": ['severity="none"']},
                    {
                        "receiver": "page",
                        "matchers": ['severity="page"'],
                        "group_wait": "10s",
                        "repeat_interval": "1h",
                    },
                ],
            },
            "receivers": receivers,
            "inhibit_rules": [
                {
                    "source_matchers": ['alertname="ReleaseInProgress"'],
                    "target_matchers": ['severity="ticket"', 'area="rollout"'],
                    "equal": ["model"],
                },
                {
                    # The target is down: that its series are old or missing is the same fact.
                    "source_matchers": ['alertname="TargetDown"'],
                    "target_matchers": ['alertname=~".*Stale"'],
                    "equal": ["job", "instance"],
                },
            ],
        }
    )


def _job(name: str, targets: list[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    return {"job_name": name, "static_configs": targets, **_limits(name, settings)}


def _own_job(site: Site, service: str, port: int, settings: Settings) -> dict[str, Any]:
    """Prometheus or Alertmanager, which answer nobody without an account."""
    target = _target(settings.control_address, port)
    return {**_job(service, [target], settings), **_account(site, service)}


def _account(site: Site, service: str) -> dict[str, Any]:
    user = str(site.users.observe)
    password = password_file(Path(site.paths.passwords), service, user)
    return {"basic_auth": {"username": user, "password_file": str(password)}}


def amtool_yml(site: Site, settings: Settings | None = None) -> str:
    """amtool's own configuration, for the identity that runs Alertmanager.

    Debian's amtool reads `~/.config/prometheus/amtool.yml`, others `~/.config/amtool/config.yml`:
    https://github.com/prometheus/alertmanager#configuration
    """
    settings = settings or read_settings()
    url = f"http://{host_port(settings.control_address, site.ports.alertmanager)}"
    return _yaml({"alertmanager.url": url, "http.config.file": str(amtool_http_file(site))})


def amtool_http_yml(site: Site) -> str:
    """The account that amtool uses, for the file that its configuration names."""
    return _yaml(_account(site, ALERTMANAGER))


def amtool_http_file(site: Site) -> Path:
    """The place of `amtool_http_yml`."""
    return Path(site.paths.etc) / "amtool-http.yml"


def _training_job(url: str, settings: Settings) -> dict[str, Any]:
    """Running jobs come and go: they are discovered, and their series end when they leave.

    A job runs whatever its user wrote: only the metrics of a training run are taken from it.
    """
    return {
        "job_name": "train",
        "http_sd_configs": [
            {"url": url, "refresh_interval": f"{settings.scrape.training_refresh_s}s"}
        ],
        "target_limit": settings.scrape.training_targets,
        "metric_relabel_configs": [
            {"source_labels": ["__name__"], "regex": TRAINING_METRICS, "action": "keep"}
        ],
        **_limits("train", settings),
    }


def _limits(job: str, settings: Settings) -> dict[str, Any]:
    scrape = settings.scrape
    return {
        "sample_limit": scrape.samples[job],
        "label_limit": scrape.label_limit,
        "label_value_length_limit": scrape.label_value_length_limit,
    }


def _node_targets(site: Site, settings: Settings) -> list[dict[str, Any]]:
    port = site.ports.node_exporter
    targets = [_target(settings.control_address, port, host="control")]
    if settings.node_exporter_on_hosts:
        targets += _host_targets(site, port)
        targets += [
            _target(edge.address, port, host=name, region=edge_region(name, edge))
            for name, edge in site.edges.items()
            if edge.ssh is not None
        ]
    return targets


def _host_targets(site: Site, port: int) -> list[dict[str, Any]]:
    """A target on every serving host."""
    return [
        _target(host.address, port, host=name, region=host.region)
        for name, host in site.hosts.items()
    ]


def _edge_targets(site: Site) -> list[dict[str, Any]]:
    return [
        _target(edge.address, edge.stats_port, region=edge_region(name, edge), edge=name)
        for name, edge in site.edges.items()
    ]


def _edge_log_jobs(site: Site, settings: Settings) -> list[dict[str, Any]]:
    """The request log of edges on machines of their own; that of the others has the job lockgate.

    Rules believe these series from the job lockgate, so the targets have its label, and only these
    are taken. A target's region and edge are the site's word: what it says itself is
    `exported_region` and `exported_edge`.
    """
    targets = [
        _target(edge.address, site.ports.release_exporter, job="lockgate",
                region=edge_region(name, edge), edge=name)
        for name, edge in site.edges.items()
        if edge.ssh is not None
    ]  # fmt: skip
    if not targets:
        return []
    kept = {"source_labels": ["__name__"], "regex": EDGE_LOG_METRICS, "action": "keep"}
    return [
        {
            "job_name": EDGE_LOG,
            "static_configs": targets,
            "metric_relabel_configs": [kept],
            **_limits("lockgate", settings),
        }
    ]


def _target(address: str, port: int, **labels: str) -> dict[str, Any]:
    target: dict[str, Any] = {"targets": [host_port(address, port)]}
    if labels:
        target["labels"] = dict(labels)
    return target


class _Readable(yaml.SafeDumper):
    """Long expressions as blocks, lists indented: a person reads these files at night."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Readable.add_representer(str, _text)


def _yaml(document: dict[str, Any]) -> str:
    head = "# Written by serving/observe; edit conf/observe.yaml or conf/site, not this file.\n"
    return head + yaml.dump(document, Dumper=_Readable, sort_keys=False, width=1000)
