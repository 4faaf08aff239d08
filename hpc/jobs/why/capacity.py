"""Free CPUs, memory and GPUs of a cluster's nodes, and the largest request that fits into them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NODES = ("scontrol", "--details", "--oneliner", "show", "node")
TAKES_JOBS = ("IDLE", "MIXED")
"""States of a node, alone or after a `+`, in which it may have room."""
FLAGS = ("DRAIN", "DOWN", "FAIL", "MAINT", "RESERVED", "NOT_RESPONDING", "COMPLETING", "REBOOT")
GPUS = re.compile(r"\bgpu(?::[^:,(]+)?:(\d+)")


@dataclass(frozen=True)
class FreeNode:
    """The room of one node for one more job now."""

    name: str
    partitions: frozenset[str]
    cpus: int
    memory_mb: int
    gpus: int


@dataclass(frozen=True)
class JobSize:
    """The size of a request; memory and GPUs are of one node."""

    nodes: int
    tasks_per_node: int
    cpus_per_task: int
    gpus_per_node: int
    memory_mb: int
    """0 for a request that leaves memory to the cluster."""

    @property
    def ranks(self) -> int:
        return self.nodes * self.tasks_per_node

    def fits(self, node: FreeNode) -> bool:
        """True where one node's part of the request has room on `node`."""
        return (
            self.tasks_per_node * self.cpus_per_task <= node.cpus
            and self.gpus_per_node <= node.gpus
            and self.memory_mb <= node.memory_mb
        )

    def overrides(self, asked: JobSize) -> tuple[str, ...]:
        """The settings of `lockgate train` that turn `asked` into this size."""
        values = {
            "nodes": (self.nodes, asked.nodes),
            "tasks_per_node": (self.tasks_per_node, asked.tasks_per_node),
            "cpus_per_task": (self.cpus_per_task, asked.cpus_per_task),
            "gpus_per_node": (self.gpus_per_node, asked.gpus_per_node),
            "mem_gb": (self.memory_mb / 1024, asked.memory_mb / 1024),
        }
        return tuple(f"cluster.{key}={new:g}" for key, (new, old) in values.items() if new != old)


def free_nodes(text: str) -> list[FreeNode]:
    """The nodes with room for a job, of NODES' output: one line of key=value words per node.

    A line without the name, the state or a number of CPUs is left out.
    """
    found = (_node(line) for line in text.split("\n"))
    return [node for node in found if node is not None]


def largest_fitting(
    asked: JobSize, free: Sequence[FreeNode], ranks: int | None = None
) -> JobSize | None:
    """The largest size of at most `asked` that has room on the `free` nodes; None for no room.

    Most ranks first, then the most of CPUs and memory for each of them, then the least change in
    the shape; a rank keeps its GPUs. With `ranks`, only sizes of so many: a checkpoint fits no
    other number.
    """
    sizes = [
        size for size in _smaller(asked, free) if ranks is None or size.ranks == ranks
    ]  # fmt: skip
    return max(sizes, key=lambda size: _worth(size, asked), default=None)


def _smaller(asked: JobSize, free: Sequence[FreeNode]) -> Iterator[JobSize]:
    """Sizes that fit: ranks moved together or left out, CPUs and memory of a rank halved."""
    gpus, memory = (part / asked.tasks_per_node for part in (asked.gpus_per_node, asked.memory_mb))
    most = max((node.cpus for node in free), default=0)
    for tasks in range(1, min(asked.ranks, most) + 1):
        for cpus in _halves(asked.cpus_per_task):
            for share in (1.0, 0.5, 0.25):
                if tasks * cpus > most or (share < 1 and not memory):
                    continue
                memory_mb = math.ceil(tasks * memory * share)
                one = JobSize(1, tasks, cpus, math.ceil(tasks * gpus), memory_mb)
                room = sum(one.fits(node) for node in free)
                nodes = min(room, asked.ranks // tasks, asked.nodes)
                if nodes:
                    yield JobSize(nodes, tasks, cpus, one.gpus_per_node, memory_mb)


def _worth(size: JobSize, asked: JobSize) -> tuple[float, ...]:
    memory = size.memory_mb / size.tasks_per_node
    reshaped = abs(size.tasks_per_node - asked.tasks_per_node)
    return (size.ranks, size.cpus_per_task, memory, -reshaped)


def _halves(count: int) -> list[int]:
    return [count >> shift for shift in range(count.bit_length())]


def _node(line: str) -> FreeNode | None:
    name, state = _word(line, "NodeName"), _word(line, "State")
    total = _count(line, "CPUEfctv") or _count(line, "CPUTot")  # without those of the system
    used = _count(line, "CPUAlloc")
    if not name or not total or used is None or not _takes_jobs(state):
        return None
    gpus = sum(map(int, GPUS.findall(_word(line, "Gres"))))
    used_gpus = sum(map(int, GPUS.findall(_word(line, "GresUsed"))))
    memory = (_count(line, "RealMemory") or 0) - (_count(line, "MemSpecLimit") or 0)
    return FreeNode(
        name=name,
        partitions=frozenset(_word(line, "Partitions").split(",")),
        cpus=max(total - used, 0),
        memory_mb=max(memory - (_count(line, "AllocMem") or 0), 0),
        gpus=max(gpus - used_gpus, 0),
    )


def _takes_jobs(state: str) -> bool:
    """True for IDLE, MIXED+CLOUD, IDLE+CLOUD+POWERED_DOWN, ...; `*` marks one without an answer."""
    words = state.rstrip("~#!%$@^-").split("+")
    return words[0] in TAKES_JOBS and not any(
        word.startswith(FLAGS) or word.endswith("*") for word in words
    )


def _word(line: str, key: str) -> str:
    """The first value of `key`: those that people write freely (Comment, Reason) come last."""
    found = re.search(rf"(?:^|\s){key}=(\S*)", line)
    return found[1] if found else ""


def _count(line: str, key: str) -> int | None:
    word = _word(line, key)
    return int(word) if re.fullmatch(r"[0-9]{1,12}", word, re.ASCII) else None
