"""What Prometheus and Alertmanager are given: judged by promtool and amtool themselves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from conf import ConfigError, compose
from conf.credentials import password_file
from conf.site_schema import Site, SiteEdgeSsh, site_config
from serving.observe.collectors.edge_log import EdgeLog
from serving.observe.prometheus_config import (
    EDGE_LOG_METRICS,
    alertmanager_yml,
    amtool_http_file,
    amtool_http_yml,
    amtool_yml,
    prometheus_yml,
    rules_yml,
)
from serving.observe.settings import SCRAPED, read_settings

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is missing")
needs_amtool = pytest.mark.skipif(not shutil.which("amtool"), reason="amtool is missing")


@pytest.fixture(scope="module")
def site() -> Site:
    return site_config(compose("site"))


def run(*argv: str | Path) -> str:
    done = subprocess.run([str(one) for one in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jobs(site: Site, *overrides: str) -> dict[str, Any]:
    text = prometheus_yml(site, read_settings(compose("observe", list(overrides))))
    return {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}


@needs_promtool
def test_promtool_accepts_config_and_rules(site: Site, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(prometheus_yml(site))
    (tmp_path / "rules.yml").write_text(rules_yml())
    said = run(
        "promtool", "check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus.yml"
    )
    assert "1 rule files found" in said
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yml")


@needs_amtool
@pytest.mark.parametrize(
    "overrides", [(), ("observe/receiver=webhook", "observe.receiver.webhook=http://127.0.0.1:9/x")]
)
def test_amtool_accepts_the_config_and_routes_by_severity(
    site: Site, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(alertmanager_yml(site, read_settings(compose("observe", list(overrides)))))
    run("amtool", "check-config", path)
    for labels, receiver in [
        ("severity=page", "page"),
        ("severity=ticket", "ticket"),
        ("severity=none", "nobody"),
        ("alertname=Forgotten", "ticket"),
    ]:
        options = (f"--config.file={path}", f"--verify.receivers={receiver}")
        run("amtool", "config", "routes", "test", *options, labels)
    webhooks = [one.get("webhook_configs") for one in yaml.safe_load(path.read_text())["receivers"]]
    assert [bool(one) for one in webhooks] == ([False, True, True] if overrides else [False] * 3)


def test_every_daemon_of_the_site_is_a_target(site: Site) -> None:
    found = jobs(site)
    assert sorted(found) == sorted(SCRAPED)
    triton = {
        config["targets"][0]: config["labels"] for config in found["triton"]["static_configs"]
    }
    assert triton["127.0.0.13:18002"] == {"host": "usw2-a", "region": "us-west"}
    assert len(triton) == len(site.hosts)
    verified = {
        config["targets"][0]: config["labels"] for config in found["host"]["static_configs"]
    }
    assert verified["127.0.0.13:18003"] == {"host": "usw2-a", "region": "us-west"}
    assert len(verified) == len(site.hosts)
    edges = {
        config["targets"][0]: config["labels"] for config in found["haproxy"]["static_configs"]
    }
    assert edges == {
        "127.0.0.1:18404": {"region": "us-east", "edge": "us-east"},
        "127.0.0.1:18405": {"region": "us-west", "edge": "us-west"},
    }
    for job, port in [
        ("slurm", site.ports.slurm_exporter),
        ("lockgate", site.ports.release_exporter),
    ]:
        assert found[job]["static_configs"] == [{"targets": [f"127.0.0.1:{port}"]}]


def test_training_jobs_are_discovered_soon(site: Site) -> None:
    train = jobs(site)["train"]
    assert train["http_sd_configs"] == [
        {"url": "http://127.0.0.1:19200/sd/train", "refresh_interval": "15s"}
    ]
    assert "static_configs" not in train and train["target_limit"] == 200


FORGED = """\
lockgate_train_loss 0.5
lockgate_train_step{job="lockgate",run="another"} 7
lockgate_release_total 1
lockgate_requests_total{model="flights",region="us-west"} 9
up 0
up{job="node"} 0
haproxy_server_status{proxy="triton",state="UP"} 0
"""


def with_remote_edge(site: Site) -> Site:
    """The site, its eastern edge on a machine of its own."""
    way = SiteEdgeSsh("10.0.0.7", 22, "lockgate-edge", Path("/etc/lockgate-edge"))
    east = replace(site.edges["us-east"], address="10.0.0.7", ssh=way)
    return replace(site, edges={**site.edges, "us-east": east})


def test_the_request_log_of_an_edge_elsewhere_is_scraped_there(site: Site, tmp_path: Path) -> None:
    assert "edge_log" not in jobs(site), "an edge of this machine logs to the site's exporter"
    elsewhere = with_remote_edge(site)
    job = jobs(elsewhere)["edge_log"]
    labels = {"job": "lockgate", "region": "us-east", "edge": "us-east"}
    assert job["static_configs"] == [{"targets": ["10.0.0.7:19201"], "labels": labels}]
    assert job["sample_limit"] == jobs(site)["lockgate"]["sample_limit"]
    if shutil.which("promtool"):
        (tmp_path / "prometheus.yml").write_text(prometheus_yml(elsewhere))
        (tmp_path / "rules.yml").write_text(rules_yml())
        run("promtool", "check", "config", tmp_path / "prometheus.yml")


def test_an_edge_elsewhere_exports_all_of_its_log_and_nothing_else() -> None:
    registry = CollectorRegistry()
    log = EdgeLog({"": "us-east"}, (), (0.3,), registry)
    log.set_models(["toy"])
    log.versions.count("us-east", "toy", "3", 0.1, failed=False)
    names = {sample.name for family in registry.collect() for sample in family.samples}
    shown = {name for name in names if not name.endswith("_created")}
    kept = {name for name in names if re.fullmatch(EDGE_LOG_METRICS, name)}
    assert kept == shown and len(kept) == 10
    assert not re.fullmatch(EDGE_LOG_METRICS, "lockgate_release_total")


@pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is missing")
@pytest.mark.parametrize(
    ("name", "labels", "series"),
    [
        (
            "train",
            {"run": "mine"},
            {("lockgate_train_loss", "mine"), ("lockgate_train_step", "mine"), ("up", "mine")},
        ),
        (
            "edge_log",
            {"job": "lockgate", "region": "us-east"},
            {("lockgate_requests_total", "us-east"), ("up", "us-east")},
        ),
    ],
)
def test_a_job_exports_its_own_metrics_under_its_own_labels_and_nothing_else(
    site: Site, tmp_path: Path, name: str, labels: dict[str, str], series: set[tuple[str, str]]
) -> None:
    class Job(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(FORGED.encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Job)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    job = jobs(with_remote_edge(site))[name]
    job.pop("http_sd_configs", None)
    target = {"targets": [f"127.0.0.1:{server.server_port}"], "labels": labels}
    job |= {"static_configs": [target], "scrape_interval": "1s", "scrape_timeout": "1s"}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [job]}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            query = urllib.parse.quote('{__name__=~"lockgate_.*|haproxy_.*|up"}')
            url = f"http://127.0.0.1:{port}/api/v1/query?query={query}"
            found: list[dict[str, str]] = []
            end = time.monotonic() + 30
            while len(found) < len(series) and time.monotonic() < end:
                time.sleep(0.3)
                with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as page:
                    found = [one["metric"] for one in json.load(page)["data"]["result"]]
        finally:
            process.terminate()
            server.shutdown()
            server.server_close()
    (key,) = labels.keys() - {"job"}
    assert {(one["__name__"], one[key]) for one in found} == series
    assert {one["job"] for one in found} == {labels.get("job", name)}
    assert {one["instance"] for one in found} == set(target["targets"])


def test_no_scrape_is_without_limits(site: Site) -> None:
    for name, job in jobs(site).items():
        assert 0 < job["sample_limit"] <= 10_000, name
        assert 0 < job["label_limit"] <= 64 and job["label_value_length_limit"] > 0, name


def test_node_exporters_on_hosts_are_scraped_where_there_are_some(site: Site) -> None:
    assert len(jobs(site)["node"]["static_configs"]) == 1
    everywhere = jobs(site, "observe.node_exporter_on_hosts=true")["node"]["static_configs"]
    assert [config["labels"]["host"] for config in everywhere] == ["control", *site.hosts]
    remote = jobs(with_remote_edge(site), "observe.node_exporter_on_hosts=true")["node"]
    labels = {"host": "us-east", "region": "us-east"}
    assert remote["static_configs"][-1] == {"targets": ["10.0.0.7:19100"], "labels": labels}


@needs_promtool
def test_a_name_with_odd_characters_stays_a_name(tmp_path: Path) -> None:
    odd = 'a: "b" # c\n{{x}}'
    text = prometheus_yml(replace(site_config(compose("site")), name=odd))
    assert yaml.safe_load(text)["global"]["external_labels"] == {"site": odd}
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / "rules.yml").write_text(rules_yml())
    run("promtool", "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("observe.slo.latency_s=0.31", "not an edge of the histogram"),
        ("observe.slo.availability=1", "availability"),
        ("observe.slo.minimum_failures=0", "minimum_failures"),
        ("observe.scrape.timeout_s=60", "timeout_s"),
        ("~observe.scrape.samples.node", "scrape.samples"),
        ("observe.exporter.poll_s=0", "poll_s"),
        ("observe.exporter.latency_edges_s=[1,0.3]", "ascend"),
        ("observe/receiver=webhook", "webhook"),
        ("observe.receiver.webhook=ftp://x", "http or https"),
        ("+observe.slo.latencys=1", "latencys"),
    ],
)
def test_a_wrong_key_is_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"conf/observe\.yaml") as refusal:
        read_settings(compose("observe", [override]))
    assert words in str(refusal.value)


def test_prometheus_logs_in_with_files_and_no_password(site: Site) -> None:
    text = yaml.safe_load(prometheus_yml(site))
    here = site.paths.passwords
    for service in ("prometheus", "alertmanager"):
        (job,) = [one for one in text["scrape_configs"] if one["job_name"] == service]
        account = {"username": "lg-observe", "password_file": f"{here}/{service}/lg-observe"}
        assert job["basic_auth"] == account
    assert text["alerting"]["alertmanagers"][0]["basic_auth"] == account


@pytest.mark.skipif(
    not (shutil.which("prometheus-alertmanager") and shutil.which("amtool")),
    reason="alertmanager is missing",
)
def test_amtool_finds_alertmanager_and_its_account(site: Site, tmp_path: Path) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = compose("site", [f"site.root={tmp_path}", f"site.ports.alertmanager={port}"]).site
    password = password_file(Path(own.paths.passwords), "alertmanager", "lg-observe")
    amtool_http_file(own).parent.mkdir()
    password.parent.mkdir(parents=True)
    password.write_text("s3cret")
    amtool_http_file(own).write_text(amtool_http_yml(own))
    config = tmp_path / "home" / ".config" / "prometheus" / "amtool.yml"
    config.parent.mkdir(parents=True)
    config.write_text(amtool_yml(own))
    hashed = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {"lg-observe": hashed}}))
    (tmp_path / "alertmanager.yml").write_text(alertmanager_yml(own))
    argv = ["prometheus-alertmanager", f"--config.file={tmp_path}/alertmanager.yml",
            f"--storage.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}",
            f"--web.config.file={tmp_path}/web.yml", "--cluster.listen-address="]  # fmt: skip
    silence = ["amtool", "silence", "add", "alertname=X", "--comment=c", "--author=a"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 30
            while True:
                env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
                done = subprocess.run(silence, env=env, capture_output=True, text=True, check=False)
                if done.returncode == 0 or time.monotonic() > end:
                    break
                time.sleep(0.3)
            assert done.returncode == 0, done.stderr
            url = f"--alertmanager.url=http://127.0.0.1:{port}"
            env["HOME"] = "/nonexistent"
            other = subprocess.run([*silence, url], env=env, capture_output=True, text=True)
            assert other.returncode != 0 and "401" in other.stderr
        finally:
            process.terminate()
