"""The fleet from its config, and what is refused in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conf import compose
from serving.fleet.cli.command import controls
from serving.fleet.errors import FleetError
from serving.fleet.inventory import fleet_from

REPO = Path(__file__).resolve().parents[3]


def test_the_box_is_two_regions_of_two_hosts():
    fleet = fleet_from(compose("rollout"))
    assert {r.name: len(r.hosts) for r in fleet.regions} == {"us-east": 2, "us-west": 2}
    host = fleet.host("usw2-b")
    assert str(host.repository).endswith("/hosts/usw2-b/model-repository")
    assert "usw2-b/etc/supervisord.conf restart triton" in host.restart
    assert fleet.region_of(host).url == "http://127.0.0.1:18081"


def test_an_unknown_host_is_answered_with_the_nearest():
    with pytest.raises(FleetError, match="usw2-a"):
        fleet_from(compose("rollout")).host("usw2-c")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("site.hosts.use1-a.region=eu-west", "not in the US"),
        ("site.hosts.use1-a.region=us-south", "has no edge"),
        ("site.hosts.use1-a.address=127.0.0.12", "one address"),
        ("rollout.strategy=yolo", "choose load or restart"),
        ("rollout.parallel=0", "above 0"),
        ("rollout.max_errors=-1", "not be negative"),
    ],
)
def test_what_cannot_be_is_refused(change, sentence):
    with pytest.raises(FleetError, match=sentence):
        controls(compose("rollout", [change]))


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
