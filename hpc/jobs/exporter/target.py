"""The hosts and ports at which a run may be scraped: its own, whatever its target file names.

Who trains writes that file, and Prometheus goes wherever it is sent. So a target is believed only
at the job's own first node, on which rank 0 runs, and on a port that no daemon of a site has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hpc.jobs.local import backend as local_backend
from hpc.jobs.run.files import read_record
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm.jobs import SlurmJob, wanted_job

ADDRESSES = ("sinfo", "--all", "--noheader", "--Node", "--format=%N|%o")

METRICS_PORTS = range(32768, 65536)
"""Those that Linux hands out to who asks for any (ip_local_port_range), as rank 0 does."""


def parse_addresses(text: str) -> dict[str, str]:
    """Node -> NodeAddr, of `%N|%o` lines. Raises ValueError for a line of another form."""
    pairs = [line.split("|") for line in text.split("\n") if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("sinfo printed no NODE|ADDRESS lines")
    return {node.strip(): address.strip() for node, address in pairs}


def own_hosts(run: Run, queue: Sequence[SlurmJob], addresses: Mapping[str, str]) -> frozenset[str]:
    """Names and addresses under which rank 0 of `run` can be; none where its job does not run."""
    record = read_record(run)
    if record.kind == local_backend.KIND:
        return frozenset({"127.0.0.1"})
    wanted = wanted_job(record)
    nodes = {job.node for job in queue if job.state == "RUNNING" and wanted.matches(job)} - {""}
    return frozenset(nodes | {addresses[node] for node in nodes if node in addresses})


def is_own_target(target: str, hosts: Iterable[str]) -> bool:
    """True where `target`, a `host:port`, is one of `hosts` at a port for metrics."""
    host, _, port = target.rpartition(":")
    is_number = port.isascii() and port.isdecimal() and len(port) <= 5
    return host in hosts and is_number and int(port) in METRICS_PORTS
