"""Sites as people write them: the values, and the refusal of a wrong key or value."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf import ConfigError, compose
from conf.site_checks import check_address, require_us_region
from conf.site_schema import Site, site_config


def made(*overrides: str) -> Site:
    return site_config(compose("site", ["site.root=/srv/box", *overrides]))


def test_the_box_is_a_site_with_typed_values() -> None:
    site = made()
    assert site.paths.store == Path("/srv/box/store")
    assert site.users.of("deploy") == site.users.deploy == "lg-deploy"
    assert site.hosts["usw2-a"].region == "us-west"
    assert site.edges["us-east"].socket == Path("/srv/box/run/edge/haproxy-us-east.sock")
    assert site.edge.fall == 2
    assert site.prometheus_url == "http://127.0.0.1:19090"


def test_one_key_is_changed_by_an_override() -> None:
    assert made("site.edge.fall=5").edge.fall == 5
    address = made("site.hosts.use1-a.address='2001:db8::7'").hosts["use1-a"].address
    assert address == "2001:db8::7"
    edge = made("site.edges.us-west.address='::1'").edges["us-west"]
    assert (edge.url, edge.metrics_url) == ("http://[::1]:18081", "http://[::1]:18405/metrics")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+site.prots={ssh: 1}", r"^site\.prots is unknown here. Nearest: ports"),
        ("+site.edge.fal=3", r"^site\.edge\.fal is unknown here. Nearest: fall"),
        ("+site.hosts.use1-a.adress=h", r"^site\.hosts\.use1-a\.adress .* Nearest: address"),
        ("~site.ports.ssh", r"^site\.ports\.ssh is missing"),
        ("site.ports.ssh=22.5", r"^site\.ports\.ssh is 22\.5, not of type int"),
        ("site.users.train=7", r"^site\.users\.train is 7, not of type str"),
        ("site.ports.ssh=0", r"^site\.ports\.ssh=0: must be a port, 1 to 65535"),
        ("site.ports.ssh=65536", r"^site\.ports\.ssh=65536: must be a port"),
        ("site.ports.mlflow=19090", r"^site\.ports\.prometheus=19090: mlflow has it already"),
        ("site.ports.mlflow=16822", r"^site\.ports\.slurmd_base \+ 2=16822: .*mlflow has it"),
        ("site.ports.slurmd_base=65534", r"^site\.ports\.slurmd_base \+ 2=65536: must be a port"),
        ("site.edges.us-west.http_port=18080", r"^site\.edges\.us-west\.http_port=.*us-east"),
        ("site.edges.us-west.http_port=19090", r"^site\.edges\.us-west\.http_port=19090: is also"),
        ("site.edges.us-west.socket=x.sock", r"^site\.edges\.us-west\.socket=x\.sock: must be abs"),
        ("site.users.host=lg-train", r"^site\.users\.host=lg-train: train has it already"),
        ("site.users.host='a b'", r"^site\.users\.host=a b: must be a POSIX"),
        ("site.hosts.use1-a.region=eu-west", r"^site\.hosts\.use1-a\.region=eu-west: .* US only"),
        ("site.hosts.use1-a.region=us-north", r"^site\.hosts\.use1-a\.region=us-north: must be a"),
        ("+site.edges.eu-west=${site.edges.us-east}", r"^site\.edges\.eu-west=eu-west: .* US only"),
        ("site.hosts.use1-b.address=127.0.0.11", r"^site\.hosts\.use1-b\.address=.*use1-a.* has"),
        ("site.hosts.use1-b.address=127.0.0.300", r"^site\.hosts\.use1-b\.address=.*neither an IP"),
        (
            "+site.hosts.n2={address: 10.0.0.2, region: us-east}",
            r"^site\.hosts\.n2=.* is a training",
        ),
        ("site.hosts.use1-b.address=n1", r"^site\.hosts\.use1-b=n1: n1 is a training node"),
        ("site.triton.max_instances=65", r"^site\.triton\.max_instances=65: must be 64 at most"),
        ("site.signing.approvals=2", r"^site\.signing\.approvals=2: must be 0 or 1"),
        ("site.signing.approvals=1", r"^site\.signing\.approvals=1: approvers names nobody"),
        ("site.signing.approvers=[key]", r"^site\.signing\.approvers: 'key' is no public key"),
        ("site.edge.fall=0", r"^site\.edge\.fall=0: must be at least 1"),
        ("site.slurm.nodes=0", r"^site\.slurm\.nodes=0: must be at least 1"),
        ("site.prometheus.retention=3 days", r"^site\.prometheus\.retention=3 days: must be a dur"),
        ("site.paths.runs=runs", r"^site\.paths\.runs=runs: must be absolute"),
        ("site.paths.runs=${site.nothing}", r"^site\.paths\.runs: "),
    ],
)
def test_what_is_wrong_is_refused_with_its_key(override: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        made(override)


def test_two_edges_may_share_a_port_on_two_addresses() -> None:
    site = made("site.edges.us-west.http_port=18080", "site.edges.us-west.address=10.0.0.2")
    assert {edge.http_port for edge in site.edges.values()} == {18080}


@pytest.mark.parametrize("address", ["127.0.0.11", "::1", "2001:db8::7", "gpu-7.example.org", "h"])
def test_an_address_is_an_ip_address_or_a_host_name(address: str) -> None:
    check_address("address", address)


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0", "1.2.3.4.5", "::g", "a b", "h\n  bind *:1", "-h", "h.", "[::1]", "h:1"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="neither an IP address nor a host name"):
        check_address("address", address)


def test_only_regions_of_the_us_serve() -> None:
    require_us_region("region", "us-central")
    for region in ("eu-west", "us", "US-east", "aus-east", ""):
        with pytest.raises(ValueError, match=r"^region=.* US only"):
            require_us_region("region", region)
