from __future__ import annotations

import random
import socket

import pytest

from hpc.jobs.rank.rendezvous import PORTS
from hpc.nodes.collective import other_port


@pytest.fixture
def free_port() -> int:
    """A port for training whose counterpart for the checks is free: any, as another stage's tests
    look for one at the same time."""
    for port in random.sample(PORTS, 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", other_port(port))):
                return port
    raise OSError("no port is free")
