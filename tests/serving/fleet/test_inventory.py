"""The fleet from its config, and what is refused in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf import LockgateError, compose
from serving.fleet.cli.command import controls
from serving.fleet.errors import FleetError
from serving.fleet.inventory import fleet_from
from serving.fleet.ssh.ssh_client import jump_command, ssh_command

REPO = Path(__file__).resolve().parents[3]


def test_the_box_is_two_regions_of_two_hosts():
    fleet = fleet_from(compose("rollout"))
    assert {r.name: len(r.hosts) for r in fleet.regions} == {"us-east": 2, "us-west": 2}
    host = fleet.host("usw2-b")
    assert (host.address, host.http_port) == ("127.0.0.14", 18000)
    ssh = fleet.ssh_of(host)
    assert (ssh.user, ssh.transfer_user, ssh.port) == ("lg-verify", "lg-host", 2222)
    assert fleet.region_of(host).edges[0].url == "http://127.0.0.1:18081"


def test_an_unknown_host_is_answered_with_the_nearest():
    with pytest.raises(FleetError, match="usw2-a"):
        fleet_from(compose("rollout")).host("usw2-c")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("site.hosts.use1-a.region=eu-west", "not in the US"),
        ("site.hosts.use1-a.region=us-south", "has no edge"),
        ("site.hosts.use1-a.address=127.0.0.12", "one address"),
        ("rollout.strategy=yolo", "not one of load, restart"),
        ("rollout.parallel=0", "above 0"),
        ("rollout.max_errors=-1", "not be negative"),
    ],
)
def test_what_cannot_be_is_refused(change, sentence):
    with pytest.raises(LockgateError, match=sentence):
        controls(compose("rollout", [change]))


def with_host(**entry):
    config = compose("rollout")
    OmegaConf.set_struct(config, False)
    name = entry.pop("name", "odd")
    config.site.hosts[name] = {"address": "10.0.0.9", "region": "us-east", **entry}
    return config


def test_a_host_may_have_a_port_accounts_and_a_way_of_its_own():
    own = {"port": 22, "user": "verify", "transfer_user": "in", "proxy_jump": "hop@[fd00::1]:22"}
    fleet = fleet_from(with_host(address="fd00::9", **own))
    ssh = fleet.ssh_of(fleet.host("odd"))
    assert {key: getattr(ssh, key) for key in own} == own
    assert fleet.ssh_of(fleet.host("use1-a")) == fleet.ssh
    assert jump_command(ssh).endswith("-p 22 -W '[%h]:%p' 'hop@[fd00::1]'")
    assert "ProxyCommand=ssh -F none" in ssh_command(ssh) and " -p 22 " in ssh_command(ssh)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"name": "a;id"}, "the name of a host"),
        ({"name": "-oProxyCommand=id"}, "the name of a host"),
        ({"address": "-oProxyCommand=id"}, "neither an IP address nor a host name"),
        ({"address": "10.0.0.9 x"}, "neither an IP address nor a host name"),
        ({"name": "n2"}, "n2 is a training node of the site's Slurm"),
        ({"address": "n1.cluster"}, "n1 is a training node of the site's Slurm"),
        ({"port": 0}, "must be a port"),
        ({"user": "root; id"}, "must be a POSIX user"),
        ({"proxy_jump": "-oProxyCommand=id"}, "user@address:port"),
        ({"proxy_jump": "a@b c:22"}, "user@address:port"),
        ({"prot": 22}, "Nearest: port"),
    ],
)
def test_a_host_that_ssh_could_misread_is_refused(entry, sentence):
    with pytest.raises(FleetError, match=sentence):
        fleet_from(with_host(**entry))


def test_an_edge_with_an_ipv6_address_has_a_url_with_brackets():
    config = compose("rollout")
    config.site.edges["us-east"].address = "::1"
    fleet = fleet_from(config)
    assert fleet.region_of(fleet.host("use1-a")).edges[0].url == "http://[::1]:18080"


def test_an_edge_outside_the_us_is_refused():
    config = compose("rollout")
    OmegaConf.set_struct(config, False)
    config.site.edges["ap-south"] = config.site.edges["us-east"]
    with pytest.raises(FleetError, match=r"ap-south.*not in the US"):
        fleet_from(config)


def test_the_fleet_is_imported_without_torch_and_heavy_clients():
    code = (
        "import sys, serving.fleet, serving.fleet.cli.tasks\n"
        "heavy = {'torch', 'deepspeed', 'mlflow', 'tritonclient', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
