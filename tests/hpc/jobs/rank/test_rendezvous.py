from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from hpc.jobs.errors import JobError
from hpc.jobs.rank import rendezvous
from hpc.jobs.rank.rendezvous import (
    PORTS,
    Rank,
    listening_address,
    master_address,
    master_port,
    node_address,
)

RANK = Rank(3, 4, 1, 2, "n1", 20005, "5", 1, local=False)

SHOWN = """NodeName=n1 Arch=x86_64 CoresPerSocket=1
   NodeAddr=127.0.0.1 NodeHostName=vm Port=16821 Version=22.05.8
"""


def test_deepspeed_and_torch_get_all_that_they_look_for():
    assert RANK.variables({}) == {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "n1", "MASTER_PORT": "20005",
    }  # fmt: skip
    told = replace(RANK, listen_addr="10.0.0.7").variables({})
    assert (told["MASTER_ADDR"], told["LOCKGATE_LISTEN_ADDR"]) == ("n1", "10.0.0.7")


@pytest.mark.parametrize(("visible", "device"), [("", "1"), ("0,1", "1"), ("3", "0")])
def test_a_rank_that_sees_one_gpu_uses_device_0(visible, device):
    assert RANK.variables({"CUDA_VISIBLE_DEVICES": visible})["LOCAL_RANK"] == device
    first = replace(RANK, local_rank=0)
    assert first.variables({"CUDA_VISIBLE_DEVICES": visible})["LOCAL_RANK"] == "0"


def test_jobs_in_a_row_have_ports_of_their_own_below_the_kernels_range():
    ports = [master_port(str(job)) for job in range(1, 5000)]
    assert len(set(ports)) == len(ports)
    assert all(port in PORTS and port < 32768 for port in ports)
    assert master_port("12_3") == master_port("12_3")


def test_a_name_that_resolves_is_used_as_it_is(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert master_address(["node-7", "node-8"]) == "node-7"


def test_a_name_that_only_slurm_knows_is_asked_for(monkeypatch):
    def unknown(*_):
        raise socket.gaierror

    asked = []

    class Done:
        stdout = SHOWN

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(rendezvous.subprocess, "run", lambda argv, **_: asked.append(argv) or Done)
    assert master_address(["n1", "n2"]) == "127.0.0.1"
    assert asked == [["scontrol", "show", "node", "n1"]]
    monkeypatch.setattr(Done, "stdout", "Node n1 not found\n")
    with pytest.raises(JobError, match="node n1 does not resolve"):
        master_address(["n1"])


def test_node_addr_is_not_node_host_name():
    assert node_address(SHOWN) == "127.0.0.1"
    assert node_address("NodeName=n1 NodeHostName=vm") is None


def test_rank_0_listens_at_an_address_that_the_other_nodes_reach(monkeypatch):
    hosts = {"n1": "10.0.0.7", "debian": "127.0.1.1", "n2": "127.0.0.1", "far": "192.0.2.1"}

    def resolve(name, *_, **__):
        if name not in hosts and not name[0].isdigit():
            raise socket.gaierror
        return [(socket.AF_INET, 1, 6, "", (hosts.get(name, name), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert listening_address(["n1", "n2"]) == "10.0.0.7"
    assert listening_address(["debian"]) == "127.0.1.1"  # alone, it is reached there
    assert listening_address(["debian", "n2"]) == "127.0.0.1"  # both nodes are one machine
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no way to another")
        assert listening_address(["debian", "far"]) == probe.getsockname()[0]
