"""The most that a partition can ever give a job, from scontrol and sinfo, held against a request.

Slurm takes a job that is too large for its partition, and leaves it in the queue for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf import ConfigError
from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.slurm.commands import controller_is_up, query
from hpc.jobs.spec.config import ClusterConfig

# --all: hidden partitions too.
SCONTROL = ("scontrol", "--all", "--oneliner", "show", "partition")
SINFO = ("sinfo", "--all", "--noheader", "--Node", "--format=%N|%R|%c|%m|%G")
FIELD = re.compile(r"(\w+)=(\S*)")
SOCKETS = re.compile(r"\([^)]*\)")
UNLIMITED = ("UNLIMITED", "INFINITE", "NONE", "")


@dataclass(frozen=True)
class PartitionLimits:
    """The bounds of one partition; None where it has none."""

    name: str
    is_default: bool
    total_nodes: int
    max_nodes: int | None
    max_minutes: int | None
    has_qos: bool
    """A QOS of the partition may replace its bounds."""


@dataclass(frozen=True)
class NodeSize:
    """The hardware of one node, as the cluster's configuration counts it."""

    name: str
    partition: str
    cpus: int
    memory_mb: int
    gpus: int


def check_size(cluster: ClusterConfig, variables: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a job that none of the partitions it names could ever hold.

    Where Slurm does not answer, or not as expected, nothing is known and nothing is refused.
    """
    try:
        if not controller_is_up(variables):
            return
        partitions = parse_partitions(query(SCONTROL, variables))
        nodes = parse_node_sizes(query(SINFO, variables))
        excluded = _hostnames(cluster.exclude, variables) if cluster.exclude else set()
    except (SchedulerUnavailable, ValueError):
        return
    if problem := impossible(cluster, partitions, nodes, excluded):
        raise ConfigError(f"{problem}. Slurm would leave the job in its queue for ever.")


def impossible(
    cluster: ClusterConfig,
    partitions: Sequence[PartitionLimits],
    nodes: Sequence[NodeSize],
    excluded: set[str] | frozenset[str] = frozenset(),
) -> str | None:
    """The reason why the request can never start, as a sentence; None where it may, or where the
    partition is not there to be measured. `excluded` are the nodes of cluster.exclude."""
    names = cluster.partition.split(",") if cluster.partition else []
    chosen = [one for one in partitions if one.name in names or (not names and one.is_default)]
    if not chosen or len(chosen) < len(names):
        return None
    problems = [_problem(cluster, one, nodes, excluded) for one in chosen]
    if None in problems:
        return None
    return "; ".join(filter(None, problems))


def parse_partitions(text: str) -> list[PartitionLimits]:
    """The partitions of `scontrol --oneliner show partition`. Raises ValueError for other text."""
    found = []
    for line in filter(str.strip, text.split("\n")):
        fields = dict(FIELD.findall(line))
        if "PartitionName" not in fields or "TotalNodes" not in fields:
            raise ValueError(f"scontrol printed no partition: {line[:80]!r}")
        found.append(
            PartitionLimits(
                name=fields["PartitionName"],
                is_default=fields.get("Default") == "YES",
                total_nodes=int(fields["TotalNodes"]),
                max_nodes=_bound(fields.get("MaxNodes", "")),
                max_minutes=_minutes(fields.get("MaxTime", "")),
                has_qos=fields.get("QoS", "N/A") not in ("N/A", ""),
            )
        )
    return found


def parse_node_sizes(text: str) -> list[NodeSize]:
    """The nodes of `%N|%R|%c|%m|%G` lines, one per node and partition. Raises ValueError."""
    found = []
    for line in filter(str.strip, text.split("\n")):
        node, partition, cpus, memory, gres = (part.strip() for part in line.split("|", 4))
        size = NodeSize(node, partition, int(cpus), int(memory), _gpus(gres))
        found.append(size)
    return found


def _problem(
    cluster: ClusterConfig,
    partition: PartitionLimits,
    nodes: Sequence[NodeSize],
    excluded: set[str] | frozenset[str],
) -> str | None:
    name, wanted = f"partition {partition.name}", cluster.nodes
    if wanted > partition.total_nodes:
        asked = f"cluster.nodes={wanted}: {_count(wanted, 'node')} asked"
        return f"{asked}, {name} has {partition.total_nodes}"
    bounded = cluster.qos is None and not partition.has_qos  # a QOS may lift a partition's bounds
    if bounded and partition.max_nodes is not None and wanted > partition.max_nodes:
        asked = f"cluster.nodes={wanted}: {_count(wanted, 'node')} asked"
        return f"{asked}, {name} gives a job {partition.max_nodes}"
    limit = partition.max_minutes
    if bounded and limit is not None and cluster.timeout_min > limit:
        asked = f"cluster.timeout_min={cluster.timeout_min}: {cluster.timeout_min} minutes asked"
        return f"{asked}, {name} gives a job {limit}"
    here = {one.name: one for one in nodes if one.partition == partition.name}
    if len(here) < partition.total_nodes:
        return None  # nodes of a cloud, which are not up, may have any size
    return _too_small(cluster, name, list(here.values())) or _too_few(
        cluster, name, [one for one in here.values() if one.name not in excluded]
    )


def _too_small(cluster: ClusterConfig, name: str, nodes: Sequence[NodeSize]) -> str | None:
    """The first thing of which even the largest node has less than is asked for."""
    cores, tasks = _cores(cluster), cluster.tasks_per_node
    if cores > (most := max(one.cpus for one in nodes)):
        asked = f"cluster.tasks_per_node={tasks} with cluster.cpus_per_task={cluster.cpus_per_task}"
        return f"{asked}: {_count(cores, 'core')} of a node asked, a node of {name} has {most}"
    if cluster.gpus_per_node > (most := max(one.gpus for one in nodes)):
        asked = f"cluster.gpus_per_node={cluster.gpus_per_node}"
        count = _count(cluster.gpus_per_node, "GPU")
        return f"{asked}: {count} of a node asked, a node of {name} has {most}"
    if _memory_mb(cluster) > (most := max(one.memory_mb for one in nodes)):
        asked = f"cluster.mem_gb={cluster.mem_gb:g}: {_memory_mb(cluster)} MB of a node asked"
        return f"{asked}, a node of {name} has {most}"
    return None


def _too_few(cluster: ClusterConfig, name: str, nodes: Sequence[NodeSize]) -> str | None:
    """The number of nodes that are large enough and not excluded, where it is too small."""
    fitting = sum(
        one.cpus >= _cores(cluster)
        and one.gpus >= cluster.gpus_per_node
        and one.memory_mb >= _memory_mb(cluster)
        for one in nodes
    )
    if fitting >= cluster.nodes:
        return None
    without = f" without {cluster.exclude}" if cluster.exclude else ""
    asked = f"cluster.nodes={cluster.nodes}: {_count(cluster.nodes, 'node')} of this size asked"
    return f"{asked}, {name} has {fitting}{without}"


def _hostnames(node_list: str, variables: Mapping[str, str]) -> set[str]:
    return set(query(["scontrol", "show", "hostnames", node_list], variables).split())


def _cores(cluster: ClusterConfig) -> int:
    return cluster.tasks_per_node * cluster.cpus_per_task


def _memory_mb(cluster: ClusterConfig) -> int:
    return round((cluster.mem_gb or 0) * 1024)


def _bound(text: str) -> int | None:
    return None if text in UNLIMITED else int(text)


def _minutes(text: str) -> int | None:
    """Minutes of Slurm's `[days-]hours:minutes:seconds`."""
    if text in UNLIMITED:
        return None
    days, _, clock = text.rpartition("-")
    hours, minutes, _ = (int(part) for part in clock.split(":"))
    return (int(days or 0) * 24 + hours) * 60 + minutes


def _gpus(gres: str) -> int:
    """The GPUs in `gpu:h100:4(S:0-1),shard:8`; a count that is not written is 1."""
    found = 0
    for item in SOCKETS.sub("", gres).split(","):
        name, *words = item.split(":")
        if name == "gpu":
            found += int(words[-1]) if words and words[-1].isdecimal() else 1
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
