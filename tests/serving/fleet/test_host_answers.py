"""One real host that judges its own answers: dead stubs, versions that hang, starts of Triton."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from serving.fleet.cli import command
from serving.fleet.cli.host_care import check_execution
from serving.fleet.errors import FleetError, StuckVersion
from serving.fleet.ssh import transfer
from serving.fleet.ssh.connection import open_shell
from serving.fleet.ssh.triton import ready_versions
from serving.fleet.ssh.verbs import HostVerbs
from tests.serving.fleet import bed as beds

pytestmark = beds.MARKS


@pytest.fixture(scope="module")
def bed():
    made = beds.bed_up(1)
    try:
        made.publish(1, 1.0)
        made.publish(2, 2.0)
        for version in (1, 2):
            done = command.deploy(on(made), "toy", version, lambda *_: None)
            assert done.outcome.kind == "done", done.outcome
        yield made
    finally:
        made.down()


@pytest.fixture
def verbs(bed):
    """The host's verbs; the host serves 1 and 2 before and after each test."""
    fleet = on(bed).fleet
    host = fleet.host("a")
    shell = open_shell(host, fleet.ssh_of(host))
    made = HostVerbs(shell, HostVerbs(shell).call("facts", "all")["fence"])
    made.call("persist", "toy", "1,2", rollback=True)
    made.call("serve", "toy", "1,2", rollback=True, timeout_s=60)
    yield made
    if agent(bed) != b"up\n":
        made.call("persist", "toy", "1,2", rollback=True)
        made.call("restart", timeout_s=60)
    shell.close()


def on(bed):
    return command.controls(OmegaConf.merge(bed.config, {"rollout": {"settle_s": 0.2}}))


def agent(bed) -> bytes:
    endpoint = (bed.site.hosts["a"].address, bed.site.ports.host_agent)
    with socket.create_connection(endpoint, timeout=5) as link:
        return link.makefile("rb").read()


def comes(bed, wanted: bytes, within_s: float = 30) -> float:
    """Seconds until the agent's line begins with `wanted`."""
    began = time.monotonic()
    while not (line := agent(bed)).startswith(wanted):
        assert time.monotonic() - began < within_s, line
        time.sleep(0.05)
    return time.monotonic() - began


def facts(verbs) -> transfer.Facts:
    return transfer.read_facts(verbs, "toy")


def stubs(bed, version: int) -> list[int]:
    """Pids of the Python stubs of this bed's Triton that run `version`."""
    return [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if f"{bed.repository('a')}/toy/{version}/model.py" in command_line(path)
    ]


def command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


def test_facts_show_what_triton_has(bed, verbs):
    comes(bed, b"up")
    found = facts(verbs)
    assert found.states == {1: ("READY", ""), 2: ("READY", "")}
    assert found.control == "" and 30 << 20 < found.memory_bytes < 4 << 30
    assert abs(transfer.read_memory(verbs) - found.memory_bytes) < 64 << 20
    beds.wait_for(lambda: {v for v, one in facts(verbs).golden.items() if one.ok} == {1, 2}, 20)
    assert all(0 < one.seconds < 5 for one in facts(verbs).golden.values())
    began = time.monotonic()
    facts(verbs)
    assert time.monotonic() - began < 3


def test_a_probe_is_one_answer_now(verbs):
    found = verbs.call("probe", "toy", 2)
    assert found["ok"] and found["detail"] == "" and 0 < found["seconds"] < 5
    assert not verbs.call("probe", "toy", 1)["detail"]


def test_a_dead_stub_takes_the_host_out_and_a_restart_brings_it_back(bed, verbs):
    comes(bed, b"up")
    (stub,) = stubs(bed, 2)
    os.kill(stub, signal.SIGKILL)
    assert comes(bed, b"down #toy/2 answers its golden questions wrongly") < 15
    found = facts(verbs)
    assert found.states[2][0] == "READY", "to Triton it is well"
    assert not found.golden[2].ok and found.golden[2].detail and found.golden[1].ok
    probed = verbs.call("probe", "toy", 2, timeout_s=60)
    assert not probed["ok"] and "500" in probed["detail"]
    good, dead = check_execution(on(bed), "a")
    assert (good.version, good.fault) == (1, "") and dead.version == 2 and "500" in dead.fault
    verbs.call("restart", timeout_s=60)
    # Live comes before proven: at no moment between is there an `up`.
    comes(bed, b"up")
    assert facts(verbs).golden[2].ok
    checks = check_execution(on(bed), "a")
    assert [(one.model, one.version, one.fault) for one in checks] == [
        ("toy", 1, ""),
        ("toy", 2, ""),
    ]
    assert all(0 < one.seconds < 5 for one in checks)


def test_a_version_loaded_beside_that_answers_wrongly_is_shown_and_takes_nobody_out(bed, verbs):
    bed.publish(3, 3.0, golden=30.0)
    shipment = command.read_shipment(bed.store, "toy", 3)
    transfer.stage(verbs, shipment, transfer.TransferLimits(0, 0), False)
    verbs.call("install", "toy", 3)
    verbs.call("serve", "toy", "1,2,3", timeout_s=60)
    beds.wait_for(lambda: 3 in facts(verbs).golden, 20)
    time.sleep(3)
    assert agent(bed) == b"up\n"
    assert "off by" in facts(verbs).golden[3].detail
    assert "off by" in verbs.call("probe", "toy", 3)["detail"]
    verbs.call("serve", "toy", "1,2", rollback=True, timeout_s=60)
    beds.wait_for(lambda: sorted(facts(verbs).golden) == [1, 2], 10)


def test_a_version_that_is_taken_away_on_purpose_takes_nobody_out(bed, verbs):
    verbs.call("serve", "toy", "2", rollback=True, timeout_s=60)
    time.sleep(3)
    assert agent(bed) == b"up\n" and facts(verbs).states[1][0] != "READY"


def test_a_model_whose_files_are_gone_is_unloaded_all_the_same(bed, verbs):
    verbs.call("persist", "toy", "none")
    assert ready_versions(verbs.shell, "toy"), "it answers without its files"
    verbs.call("withdraw", "toy", timeout_s=60)
    assert ready_versions(verbs.shell, "toy") == ()
    verbs.call("withdraw", "toy", timeout_s=60)  # done twice changes nothing
    verbs.call("serve", "toy", "1,2", rollback=True, timeout_s=60)
    verbs.call("persist", "toy", "1,2", rollback=True)
    assert ready_versions(verbs.shell, "toy") == (1, 2)


def test_a_version_whose_process_died_is_stuck_in_its_unload_and_the_host_has_a_name_for_it(
    bed, verbs
):
    comes(bed, b"up")
    (stub,) = stubs(bed, 2)
    os.kill(stub, signal.SIGKILL)
    comes(bed, b"down")
    for versions in ("1", "1,2"):
        began = time.monotonic()
        with pytest.raises(StuckVersion, match="toy/2 UNLOADING, whose process has ended"):
            verbs.call("serve", "toy", versions, rollback=True, timeout_s=90)
        assert time.monotonic() - began < 20
    assert facts(verbs).states[2][0] == "UNLOADING"
    comes(bed, b"down #toy/2 is UNLOADING")
    verbs.call("restart", timeout_s=60)
    comes(bed, b"up")
    verbs.call("serve", "toy", "1", rollback=True, timeout_s=60)
    verbs.call("serve", "toy", "1,2", rollback=True, timeout_s=60)
    assert {state for state, _ in facts(verbs).states.values()} == {"READY"}


def regions(bed) -> set[str]:
    site = bed.site
    prefix = f"lockgate_{site.hosts['a'].address}_{site.ports.triton_http}_"
    return {path.name for path in Path("/dev/shm").glob(f"{prefix}*")}


def test_a_killed_triton_leaves_memory_that_its_next_start_collects(bed, verbs):
    comes(bed, b"up")
    before = regions(bed)
    assert before
    (server,) = [
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if f"--model-repository={bed.repository('a')}" in command_line(path).split("\0")
        and "tritonserver" in command_line(path).split("\0")[0]
    ]
    for pid in (server, *stubs(bed, 1), *stubs(bed, 2)):
        os.kill(pid, signal.SIGKILL)
    comes(bed, b"down", 10)
    comes(bed, b"up", 60)
    assert regions(bed) and not regions(bed) & before
    assert "regions that a killed Triton left" in verbs.call("logs", 500)["text"]


def test_a_load_goes_on_when_its_connection_is_lost_and_the_next_command_waits_for_it(bed, verbs):
    bed.publish(4, 4.0, load_s=4)
    shipment = command.read_shipment(bed.store, "toy", 4)
    transfer.stage(verbs, shipment, transfer.TransferLimits(0, 0), False)
    site = bed.site
    words = f"lockgate {'0' * 32} serve toy 1,2,4 --fence {verbs.fence} --timeout 60"
    client = subprocess.Popen(
        ["ssh", "-F", "none", "-p", str(site.ports.ssh), "-i", str(site.paths.deploy_key),
         "-o", f"UserKnownHostsFile={site.paths.known_hosts}", "-o", "BatchMode=yes",
         "-o", "IdentitiesOnly=yes", f"{site.users.verify}@{site.hosts['a'].address}", words],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    beds.wait_for(lambda: facts(verbs).states.get(4, ("",))[0] == "LOADING", 30)
    client.kill()
    client.wait()
    assert facts(verbs).work == "serve toy 1,2,4"
    with pytest.raises(FleetError, match="longer than it may"):
        verbs.call("install", "toy", 1, timeout_s=1)
    verbs.call("install", "toy", 1)
    assert facts(verbs).states[4] == ("READY", "") and facts(verbs).work == ""
    assert agent(bed) == b"up\n"
    verbs.call("serve", "toy", "1,2", rollback=True, timeout_s=60)
