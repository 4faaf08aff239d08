"""Faults of a bare machine's network, made in its own network namespace and taken away at the end.

Nothing outside that namespace is touched: a partition and a cut are rules of nftables there, a slow
link a token bucket (tc tbf) behind the way in.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving.fleet.nspawn.machines import Machine, children

LINK = "host0"
_TABLE = "inet lockgate_fault"


def reason_without_faults() -> str:
    """The reason why no fault can be made here, with the remedy; "" where they can."""
    if missing := [name for name in ("nsenter", "nft", "tc") if shutil.which(name) is None]:
        return f"no {', '.join(missing)}: apt-get install nftables iproute2 util-linux"
    return ""


@contextmanager
def partition(machine: Machine) -> Iterator[None]:
    """While the block runs no packet reaches the machine or leaves it, and nobody is answered."""
    with _rules(machine, f'iifname "{LINK}" drop', f'oifname "{LINK}" drop'):
        yield


@contextmanager
def cut(machine: Machine) -> Iterator[None]:
    """While the block runs every TCP connection to the machine is reset at its next packet."""
    with _rules(machine, f'iifname "{LINK}" meta l4proto tcp reject with tcp reset', "accept"):
        yield


@contextmanager
def slow_link(machine: Machine, mbit_s: float) -> Iterator[None]:
    """While the block runs the machine receives `mbit_s` megabits a second."""
    for command in (
        "ip link add ifb0 type ifb",
        "ip link set ifb0 up",
        f"tc qdisc add dev {LINK} handle ffff: ingress",
        f"tc filter add dev {LINK} parent ffff: protocol all u32 match u32 0 0 "
        "action mirred egress redirect dev ifb0",
        f"tc qdisc add dev ifb0 root tbf rate {mbit_s}mbit burst 32kb latency 400ms",
    ):
        _inside(machine, *command.split())
    try:
        yield
    finally:
        _inside(machine, "tc", "qdisc", "delete", "dev", LINK, "ingress")
        _inside(machine, "ip", "link", "delete", "ifb0")


@contextmanager
def _rules(machine: Machine, coming: str, going: str) -> Iterator[None]:
    text = (
        f"table {_TABLE} {{\n"
        f" chain coming {{\n  type filter hook input priority 0;\n  {coming}\n }}\n"
        f" chain going {{\n  type filter hook output priority 0;\n  {going}\n }}\n}}\n"
    )
    _inside(machine, "nft", "-f", "-", text=text)
    try:
        yield
    finally:
        _inside(machine, "nft", "delete", "table", *_TABLE.split())


def _inside(machine: Machine, *argv: str, text: str = "") -> None:
    """Run a program of this machine in the other's network namespace."""
    own = Path("/proc/self/ns/net").readlink()
    assert machine.process is not None
    places = [Path(f"/proc/{pid}/ns/net") for pid in children(machine.process.pid)]
    place = next(one for one in places if one.readlink() != own)
    done = subprocess.run(
        ["nsenter", f"--net={place}", *argv], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, (argv, done.stderr)
