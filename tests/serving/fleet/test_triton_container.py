"""Triton in a container of podman: its unit to the letter, and what a site may not ask for.

No registry is reached here: the container was never run by a test.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conf import compose
from conf.errors import ConfigError
from conf.schema import from_config
from conf.site_schema import site_config
from serving.fleet.bootstrap.facts import HostImage, HostPackages
from serving.fleet.bootstrap.layout import BootstrapSettings, HostLayout, host_layout
from serving.fleet.bootstrap.serving_host import HostTrust, serving_host
from serving.fleet.bootstrap.triton_container import podman_run
from serving.fleet.bootstrap.units import TRITON, unit_texts
from serving.fleet.bootstrap.wheelhouse import Wheelhouse
from serving.fleet.cli.bootstrap import host_units, setup
from serving.fleet.errors import FleetConfigError

GOLDEN = Path(__file__).with_name("units") / "triton-container.service"
IMAGE = f"nvcr.io/nvidia/tritonserver:25.01-py3@sha256:{'0123456789abcdef' * 4}"
NGC = ("bootstrap.runtime=ngc", f"bootstrap.image='{IMAGE}'")


def layout(*overrides: str) -> HostLayout:
    config = compose("bootstrap", [*NGC, *overrides])
    settings = from_config(BootstrapSettings, config.bootstrap, "bootstrap")
    return host_layout(site_config(config), settings, "use1-a")


def test_the_unit_is_to_the_letter_as_it_was_reviewed() -> None:
    made = unit_texts(layout("bootstrap.devices=[/dev/nvidia0]", "bootstrap.cpu_quota=400%"))
    assert made[TRITON] == GOLDEN.read_text()


def test_the_container_has_the_rights_of_the_wheels_triton_and_no_more() -> None:
    words = podman_run(layout())
    image = words.index(IMAGE)
    ours, tritons = words[:image], words[image + 1 :]
    assert {"--cap-drop=all", "--security-opt=no-new-privileges", "--read-only",
            "--user=lg-triton", "--pull=never", "--cgroups=split"} <= set(ours)  # fmt: skip
    written = [one for one in ours if one.startswith("--volume=") and not one.endswith(":ro")]
    assert written == ["--volume=/srv/lockgate/run/triton:/srv/lockgate/run/triton"]
    assert "--privileged" not in words and not any(one.startswith("--device") for one in ours)
    wheel = host_layout(
        site_config(compose("bootstrap")),
        from_config(BootstrapSettings, compose("bootstrap").bootstrap, "bootstrap"), "use1-a",
    )  # fmt: skip
    same = [one for one in wheel.triton.argv()[1:] if not one.startswith("--backend-directory")]
    assert [one for one in tritons if not one.startswith("--backend-directory")] == same


def test_a_host_of_wheels_has_no_container() -> None:
    settings = from_config(BootstrapSettings, compose("bootstrap").bootstrap, "bootstrap")
    made = host_layout(site_config(compose("bootstrap")), settings, "use1-a")
    assert "podman" not in unit_texts(made)[TRITON]


def test_the_image_is_there_before_the_unit_that_runs_it() -> None:
    trust = HostTrust("ssh-ed25519 AAAA deploy", "", "private", "{}")
    facts = serving_host(layout(), trust, Wheelhouse(Path("/nowhere"), "# none\n", "0" * 64))
    kinds = [type(fact).__name__ for fact in facts]
    assert kinds.index("HostImage") < kinds.index("HostUnit")
    assert [fact for fact in facts if isinstance(fact, HostImage)] == [HostImage(IMAGE)]
    (packages,) = (fact for fact in facts if isinstance(fact, HostPackages))
    assert {"podman", "crun"} <= set(packages.names)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bootstrap.image=nvcr.io/nvidia/tritonserver:25.01-py3", "by its digest"),
        ("bootstrap.image=''", "by its digest"),
        (f"bootstrap.image='{IMAGE} --privileged'", "by its digest"),
        ("bootstrap.image='nvcr.io/a@sha256:12'", "by its digest"),
        ("bootstrap.runtime=docker", "none of wheelhouse, ngc"),
    ],
)
def test_what_is_no_image_by_its_digest_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        layout(override)


def test_the_units_are_printed_without_a_host() -> None:
    on = setup(compose("bootstrap", list(NGC)))
    printed = "\n".join(host_units(on, "use1-a"))
    assert printed.startswith("# /etc/systemd/system/lockgate-watch.service\n")
    assert f" {IMAGE} " in printed and "lockgate-restart.socket" in printed
    with pytest.raises(FleetConfigError, match="Nearest: use1-a"):
        host_units(on, "use1-aa")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    """Its only complaints may be about programs and units that this machine does not have."""
    for name, text in unit_texts(layout()).items():
        (tmp_path / name).write_text(text)
    shown = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / TRITON)],
        capture_output=True, text=True,
    )  # fmt: skip
    about = re.compile(rf"{re.escape(str(tmp_path))}|{TRITON}")
    lines = [line for line in shown.stderr.splitlines() if about.search(line)]
    missing = re.compile(r"is not executable: No such file|Failed to (prepare|open)")
    assert [line for line in lines if not missing.search(line)] == []
