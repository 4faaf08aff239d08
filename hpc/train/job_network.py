"""The job's own network: what the ranks listen on, which is the job's address and no other.

torch's store would listen on every address of the machine, and believes whoever connects; gloo's
pairs would listen where the machine's name leads, which may be its public address.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from datetime import timedelta
from ipaddress import ip_address

import torch.distributed as dist

LISTEN = "LOCKGATE_LISTEN_ADDR"
"""Of rank 0: its address for the job's other nodes, where its own name does not lead there."""
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
SIOCGIFADDR = 0x8915  # the IPv4 address of an interface: netdevice(7)
BACKLOG = 4096  # ranks that connect at one time


def open_store(timeout: timedelta) -> dist.TCPStore:
    """The ranks' store at MASTER_ADDR and MASTER_PORT, served by rank 0 on that address alone.

    Raises OSError where rank 0 cannot listen there.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank != 0:
        return dist.TCPStore(address, port, size, False, timeout)
    resolved, family = _resolved(os.environ.get(LISTEN, address))
    listener = socket.create_server((resolved, port), family=family, backlog=BACKLOG)
    return dist.TCPStore(
        resolved, port, size, True, timeout, master_listen_fd=listener.detach()
    )  # the store closes it


def bind_gloo() -> None:
    """Let gloo use the interface that leads to rank 0, unless the environment names another."""
    leader = os.environ.get(LISTEN, os.environ["MASTER_ADDR"])
    interface = _interface(_own_address(leader, int(os.environ["MASTER_PORT"])))
    if interface is not None:
        os.environ.setdefault(GLOO_INTERFACE, interface)


def _resolved(name: str) -> tuple[str, socket.AddressFamily]:
    """The first address of `name`, IPv4 before IPv6, and its family. Raises OSError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return str(address[0]), family


def _own_address(name: str, port: int) -> str:
    """The address of this machine from which `name` is reached; nothing is sent."""
    address, family = _resolved(name)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        return str(probe.getsockname()[0])


def _interface(address: str) -> str | None:
    """The interface that has `address`; None for one that cannot be found, such as an IPv6 one."""
    if ip_address(address).is_loopback:
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, request)
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
