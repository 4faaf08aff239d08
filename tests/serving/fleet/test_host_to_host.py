"""Three real hosts in network namespaces: what they give each other, and what they do not."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from scripts.box import hosts as box
from scripts.rollout_bench.artifact import MODEL, publish_random
from scripts.rollout_bench.machines import SSH_PORT, BenchError, machines
from serving.artifact.verify import file_sha256
from serving.fleet.errors import FleetError
from serving.fleet.inventory import fleet_from
from serving.fleet.rollout.engine import RolloutConfig
from serving.fleet.rollout.waves import by_turns
from serving.fleet.shipment import read_shipment
from serving.fleet.ssh import transfer
from serving.fleet.ssh.rsync import push
from serving.fleet.ssh.ssh_driver import SshDriver

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: its hosts are network namespaces"),
]
LIMITS = transfer.TransferLimits(0, 0)
MIB = 1 << 20


@pytest.fixture(scope="module")
def made():
    try:
        with machines(3) as found:
            publish_random(found.folder / "store", found.folder / "keys" / "release", 1, 2)
            yield found
    except BenchError as error:
        pytest.skip(f"no network namespaces here: {error}")


@pytest.fixture
def driver(made):
    made.empty_hosts()
    with SshDriver(fleet_from(made.config), MODEL, made.folder / "store", RolloutConfig()) as one:
        yield one


def shipment_of(made, version=1):
    return read_shipment(made.folder / "store", MODEL, version)


def home(made, host) -> Path:
    return box.home(made.site, host)


def weights(made, host, version=1) -> Path:
    return home(made, host) / "packages" / MODEL / str(version) / "version" / "weights.bin"


def stage(driver, shipment, *names):
    return [driver.stage(driver.fleet.host(name), shipment, False) for name in names]


def as_verifier(made, *argv, space=None, **options):
    user = pwd.getpwnam(made.site.users.verify)
    prefix = ["ip", "netns", "exec", f"{made.bridge}-{space}"] if space else []
    return subprocess.run(
        [*prefix, "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups",
         *argv], capture_output=True, timeout=30, cwd="/", **options,
    )  # fmt: skip


def test_the_control_host_sends_a_package_once(made, driver):
    shipment, before = shipment_of(made), made.sent_bytes()
    first, *others = stage(driver, shipment, *[h.name for h in by_turns(driver.fleet.hosts)])
    sent = made.sent_bytes() - before
    assert "sent of 2.0 MiB, verified" in first
    assert all("2.0 MiB of 2.0 MiB fetched from h" in line for line in others), others
    assert driver.transfers.sent_bytes < 1.1 * shipment.size
    assert shipment.size < sent < 1.1 * shipment.size + 300_000, "with SSH's own bytes"
    for host in made.addresses:
        assert file_sha256(weights(made, host)) == file_sha256(
            shipment.path / "version" / "weights.bin"
        )
        assert oct(weights(made, host).stat().st_mode)[-3:] == "444"
    assert stage(driver, shipment, "h1", "h2", "h3") == ["already there and verified"] * 3


def test_a_fetch_goes_on_at_the_bytes_that_are_missing(made, driver):
    shipment = shipment_of(made)
    stage(driver, shipment, "h1")
    area = home(made, "h2") / "packages" / ".arriving" / MODEL / "1"
    half = shipment.path / "version" / "weights.bin"
    script = f"mkdir -p {area}/version && head -c {MIB} {half} > {area}/version/weights.bin"
    verbs = driver._verbs(driver.fleet.host("h2"))
    assert not transfer.is_ready(verbs, shipment, LIMITS, False)
    assert as_verifier(made, "sh", "-c", script).returncode == 0
    shutil.copy(shipment.path / "manifest.json", area)
    driver._verbs(driver.fleet.host("h1")).call("offer", MODEL, 1, "h2")
    arrival = transfer.fetch(verbs, shipment, LIMITS, False, "h1")
    assert arrival.sentence.startswith("1.0 MiB of 2.0 MiB fetched from h1")
    assert file_sha256(weights(made, "h2")) == file_sha256(half)


def test_what_was_sent_before_the_controller_died_is_not_sent_again(made, driver):
    shipment, host = shipment_of(made), driver.fleet.host("h1")
    verbs = driver._verbs(host)
    assert not transfer.is_ready(verbs, shipment, LIMITS, False)
    push(verbs.shell, shipment, ["version/weights.bin"], 0)
    assert not transfer.is_ready(verbs, shipment, LIMITS, False)
    assert transfer.send(verbs, shipment, LIMITS, False).sent_bytes < 100_000


def test_a_file_that_an_older_version_has_is_not_sent(made, driver):
    stage(driver, shipment_of(made), "h1")
    store, key = made.folder / "store", made.folder / "keys" / "release"
    if not (store / MODEL / "2").exists():
        publish_random(store, key, 2, 1, weights=shipment_of(made).path / "version" / "weights.bin")
    (line,) = stage(driver, shipment_of(made, 2), "h1")
    assert line.startswith("0.0 MiB sent of 2.0 MiB")
    assert file_sha256(weights(made, "h1", 2)) == file_sha256(weights(made, "h1"))


def test_bytes_that_a_neighbour_changed_are_refused_and_sent_from_here(made, driver):
    shipment = shipment_of(made)
    stage(driver, shipment, "h1")
    path = weights(made, "h1")
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(MIB)
        file.write(b"evil")
    (line,) = stage(driver, shipment, "h2")
    assert "sent of 2.0 MiB, verified" in line
    assert file_sha256(weights(made, "h2")) == file_sha256(
        shipment.path / "version" / "weights.bin"
    )


def test_a_neighbour_that_is_gone_is_replaced_by_the_controller(made, driver):
    shipment = shipment_of(made)
    stage(driver, shipment, "h1")
    space = f"{made.bridge}-h1"
    subprocess.run(["ip", "-n", space, "link", "set", "eth0", "down"], check=True)
    try:
        driver._verbs(driver.fleet.host("h1")).shell.connection.close()
        (line,) = stage(driver, shipment, "h2")
    finally:
        subprocess.run(["ip", "-n", space, "link", "set", "eth0", "up"], check=True)
    assert "sent of 2.0 MiB, verified" in line


def test_the_cap_of_bytes_per_second_holds_between_hosts(made, driver):
    shipment = shipment_of(made)
    stage(driver, shipment, "h1")
    verbs = driver._verbs(driver.fleet.host("h2"))
    assert not transfer.is_ready(verbs, shipment, LIMITS, False)
    driver._verbs(driver.fleet.host("h1")).call("offer", MODEL, 1, "h2")
    began = time.monotonic()
    transfer.fetch(verbs, shipment, transfer.TransferLimits(0, 0, 1024), False, "h1")
    assert time.monotonic() - began > 1.9


def blob(made, key: Path, lines: bytes, host="h1", user=None):
    """What a host (h2) that has the private `key` gets for these lines from `host`."""
    config = made.site
    return as_verifier(
        made, "ssh", "-F", "none", "-T", "-i", str(key), "-p", str(SSH_PORT),
        "-o", f"UserKnownHostsFile={made.known_hosts}", "-o", "BatchMode=yes",
        "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR",
        f"{user or config.users.verify}@{made.addresses[host]}", "id",
        space="h2", input=lines,
    )  # fmt: skip


def test_a_host_reads_what_it_was_offered_and_nothing_else(made, driver):
    shipment = shipment_of(made)
    stage(driver, shipment, "h1")
    key = home(made, "h2") / "etc" / "fetch_key"
    digest = shipment.digest.encode()
    denied = blob(made, key, b"blob %s 0\n" % digest)
    assert denied.returncode == 255 and denied.stdout == b"", "before anything was offered"
    driver._verbs(driver.fleet.host("h1")).call("offer", MODEL, 1, "h2")
    manifest = (shipment.path / "manifest.json").read_bytes()
    got = blob(made, key, b"blob %s 0\n" % digest)
    assert got.stdout == b"%d\n%s" % (len(manifest), manifest)
    odd = [b"id", b"blob /etc/passwd 0", b"blob ../../etc/host.json 0", b"blob", b"\xff\0",
           b"blob %s 99999999" % digest, b"signature " + b"0" * 64]  # fmt: skip
    assert blob(made, key, b"\n".join([*odd, b""])).stdout == b"none\n" * len(odd)
    for user in (made.site.users.host, "root"):
        assert blob(made, key, b"blob %s 0\n" % digest, user=user).stdout == b""


def test_an_offer_ends(made, driver):
    shipment = shipment_of(made)
    stage(driver, shipment, "h1")
    driver._verbs(driver.fleet.host("h1")).call("offer", MODEL, 1, "h2")
    offers = home(made, "h1") / "state" / "offers"
    text = offers.read_text()
    offers.write_text(text.replace("/1@1", "/1@0"))  # a second of long ago
    line = b"blob %s 0\n" % shipment.digest.encode()
    assert text != offers.read_text()
    assert blob(made, home(made, "h2") / "etc" / "fetch_key", line).stdout == b"none\n"


def test_a_package_is_offered_to_hosts_of_the_region_only(made, driver):
    """The deploy key carries no key and no address: a thief of it has nobody read a model."""
    stage(driver, shipment_of(made), "h1")
    verbs = driver._verbs(driver.fleet.host("h1"))
    for peer in ("stranger", "h1"):
        with pytest.raises(FleetError, match="is no host that this one knows"):
            verbs.call("offer", MODEL, 1, peer)
    with pytest.raises(FleetError, match="is no host that this one knows"):
        verbs.call("fetch", MODEL, 1, "0" * 64, "stranger")
    peers = json.loads((home(made, "h1") / "etc" / "peers.json").read_text())
    assert sorted(peers) == ["h2", "h3"]
    touched = as_verifier(made, "sh", "-c", f"echo x >> {home(made, 'h1')}/etc/peers.json")
    assert touched.returncode != 0
