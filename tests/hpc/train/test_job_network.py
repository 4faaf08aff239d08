"""A job listens on its own address: nobody on another one can speak to its store or its ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.jobs.rank.rendezvous import master_port
from hpc.train import job_network
from tests.hpc.train.conftest import REPO

LOOPBACK = "0100007F"


@pytest.mark.timeout(180)
def test_no_rank_of_a_job_listens_on_every_address():
    port = master_port(str(os.getpid()))  # none that the kernel gives to a connection meanwhile
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("listening_rank.py"))],
            env=os.environ | {
                "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "RANK": str(rank),
                "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            },
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        logs = [rank.communicate(timeout=150)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert [rank.returncode for rank in ranks] == [0, 0], "".join(logs)
    listening = [
        json.loads(line.removeprefix("LISTENS "))
        for log in logs
        for line in log.split("\n")
        if line.startswith("LISTENS ")
    ]
    assert f"{LOOPBACK}:{port:04X}" in listening[0]  # the store is among what was looked at
    addresses = {name.partition(":")[0] for names in listening for name in names}
    assert addresses == {LOOPBACK}


def test_the_interface_of_an_address_is_found():
    assert job_network._interface("127.0.0.1") == "lo"
    assert job_network._interface("127.0.1.1") == "lo"
    assert job_network._interface("192.0.2.77") is None  # RFC 5737: nobody's


def test_the_interface_that_leads_to_rank_0_is_gloos_unless_one_was_chosen(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "20000")
    monkeypatch.delenv(job_network.GLOO_INTERFACE, raising=False)
    job_network.bind_gloo()
    assert os.environ[job_network.GLOO_INTERFACE] == "lo"
    monkeypatch.setenv(job_network.GLOO_INTERFACE, "ib0")
    job_network.bind_gloo()
    assert os.environ[job_network.GLOO_INTERFACE] == "ib0"


def test_rank_0_listens_where_the_other_nodes_reach_it(monkeypatch):
    port = master_port(str(os.getpid() + 1))
    for name, value in {
        "MASTER_ADDR": "127.0.1.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1",
        job_network.LISTEN: "127.0.0.9",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    store = job_network.open_store(job_network.timedelta(seconds=5))
    assert store.host == "127.0.0.9"
    socket.create_connection(("127.0.0.9", port), timeout=5).close()
    for other in ("127.0.0.1", "127.0.1.1"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((other, port), timeout=5)


def test_a_port_that_is_taken_is_an_error_and_no_silent_other_one(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for name, value in {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1]),
            "RANK": "0", "WORLD_SIZE": "1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        with pytest.raises(OSError, match="in use"):
            job_network.open_store(job_network.timedelta(seconds=5))
