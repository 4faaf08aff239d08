"""Sizes that no partition can ever give, from the text of scontrol and sinfo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from conf import ConfigError
from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.slurm import limits
from hpc.jobs.slurm.limits import check_size, parse_node_sizes, parse_partitions
from tests.hpc.jobs.clusters import slurm_cluster

# Slurm 22.05, cut.
PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A \
DefaultTime=NONE MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 Nodes=n[1-2] State=UP \
TotalCPUs=4 TotalNodes=2 SelectTypeParameters=NONE
PartitionName=short AllowGroups=ALL Default=NO QoS=N/A MaxNodes=1 MaxTime=1-02:00:00 \
Nodes=n[1-3] State=UP TotalCPUs=68 TotalNodes=3
PartitionName=lifted Default=NO QoS=big MaxNodes=1 MaxTime=00:30:00 Nodes=n[1-3] TotalNodes=3
PartitionName=cloud Default=NO QoS=N/A MaxNodes=UNLIMITED MaxTime=INFINITE Nodes=c[1-9] TotalNodes=9
PartitionName=burst Default=NO QoS=N/A MaxNodes=UNLIMITED MaxTime=INFINITE Nodes=n[1-2],c1 \
TotalNodes=3
"""
NODES = """\
n1|gpu|2|8192|gpu:2
n2|gpu|2|8192|gpu:2
n1|short|2|8192|gpu:2
n2|short|2|8192|gpu:2
n3|short|64|515000|gpu:h100:8(S:0-1),shard:64
n1|lifted|2|8192|gpu:2
n2|lifted|2|8192|gpu:2
n3|lifted|64|515000|gpu:h100:8(S:0-1),shard:64
c1|cloud|2|4096|(null)
n1|burst|2|8192|gpu:2
n2|burst|2|8192|gpu:2
c1|burst|2|4096|(null)
"""
REFUSED = [
    ({"nodes": 5}, "cluster.nodes=5: 5 nodes asked, partition gpu has 2."),
    ({"nodes": 5, "partition": "gpu"}, "5 nodes asked, partition gpu has 2"),
    ({"nodes": 4, "partition": "burst"}, "4 nodes asked, partition burst has 3"),
    ({"nodes": 3, "mem_gb": 5, "partition": "burst"}, "partition burst has 2."),  # one is smaller
    ({"nodes": 10, "partition": "cloud"}, "10 nodes asked, partition cloud has 9"),
    ({"nodes": 2, "partition": "short"}, "2 nodes asked, partition short gives a job 1"),
    (
        {"tasks_per_node": 3},
        "cluster.tasks_per_node=3 with cluster.cpus_per_task=1: 3 cores of a node asked, "
        "a node of partition gpu has 2",
    ),
    ({"cpus_per_task": 65, "partition": "short"}, "65 cores of a node asked"),
    ({"gpus_per_node": 3}, "cluster.gpus_per_node=3: 3 GPUs of a node asked"),
    ({"gpus_per_node": 9, "partition": "short"}, "a node of partition short has 8"),
    ({"mem_gb": 8.5}, "cluster.mem_gb=8.5: 8704 MB of a node asked"),
    ({"timeout_min": 1561, "partition": "short"}, "partition short gives a job 1560"),
    (
        {"nodes": 2, "gpus_per_node": 8, "partition": "lifted"},
        "cluster.nodes=2: 2 nodes of this size asked, partition lifted has 1.",
    ),
    ({"nodes": 2, "exclude": "n2,n9"}, "asked, partition gpu has 1 without n2,n9"),
    ({"nodes": 4, "partition": "gpu,short"}, "partition gpu has 2; cluster.nodes=4: 4 nodes"),
]  # fmt: skip
TAKEN = [
    {"nodes": 2, "tasks_per_node": 2, "gpus_per_node": 2, "mem_gb": 8},
    {"nodes": 1, "cpus_per_task": 64, "gpus_per_node": 8, "partition": "short"},
    {"timeout_min": 1560, "partition": "short"},
    {"nodes": 2, "partition": "short", "qos": "big"},  # a QOS may lift the partition's bounds
    {"nodes": 3, "timeout_min": 1000, "partition": "lifted"},
    {"nodes": 9, "cpus_per_task": 99, "partition": "cloud"},  # nodes that are not up: not measured
    {"nodes": 3, "partition": "burst"},  # a node that is down until needed is a node
    {"nodes": 3, "partition": "gpu,lifted"},  # either may start it
    {"nodes": 99, "partition": "nowhere"},  # sbatch says so
    {"nodes": 2, "exclude": "n9"},
]


def slurm(**answers: str) -> Callable[[Sequence[str], Mapping[str, str]], str]:
    """`query` of a cluster whose programs print `answers`."""

    def query(command: Sequence[str], _: Mapping[str, str]) -> str:
        if command[:3] == ["scontrol", "show", "hostnames"]:
            return command[3].replace(",", "\n")
        return answers[command[0]]

    return query


@pytest.fixture()
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "controller_is_up", lambda _: True)
    monkeypatch.setattr(limits, "query", slurm(scontrol=PARTITIONS, sinfo=NODES))


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("asked", "words"), REFUSED)
def test_what_no_partition_can_give_is_refused(asked: dict, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_size(slurm_cluster(**asked), {})
    assert words in str(refused.value)
    assert str(refused.value).endswith(". Slurm would leave the job in its queue for ever.")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("asked", TAKEN)
def test_what_may_start_one_day_is_taken(asked: dict) -> None:
    check_size(slurm_cluster(**asked), {})


@pytest.mark.parametrize(
    ("is_up", "scontrol", "sinfo"),
    [
        (False, PARTITIONS, NODES),
        (True, "", NODES),
        (True, "no partitions", NODES),
        (True, PARTITIONS.replace("TotalNodes=2", "TotalNodes=some"), NODES),
        (True, PARTITIONS, "n1|gpu|2\n"),
        (True, PARTITIONS, None),
    ],
)
def test_a_slurm_that_cannot_be_read_refuses_nothing(monkeypatch, is_up, scontrol, sinfo) -> None:
    def query(command: Sequence[str], _: Mapping[str, str]) -> str:
        text = {"scontrol": scontrol, "sinfo": sinfo}[command[0]]
        if text is None:
            raise SchedulerUnavailable("sinfo did not answer within 20 s")
        return text

    monkeypatch.setattr(limits, "controller_is_up", lambda _: is_up)
    monkeypatch.setattr(limits, "query", query)
    check_size(slurm_cluster(nodes=99), {})


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", 0), ("gpu:2", 2), ("gpu", 1), ("gpu:h100", 1), ("gpu:h100:8(S:0,1)", 8),
        ("shard:8,gpu:a100:4(S:0-1),gpu:t4:2", 6), ("gpu_mem:80,mps:100", 0),
    ],
)  # fmt: skip
def test_gpus_are_counted_whatever_their_type(gres: str, gpus: int) -> None:
    (node,) = parse_node_sizes(f"n1|gpu|2|8192|{gres}\n")
    assert node.gpus == gpus


def test_a_partition_without_bounds_has_none() -> None:
    first, second, *_ = parse_partitions(PARTITIONS)
    assert (first.max_nodes, first.max_minutes, first.is_default) == (None, None, True)
    assert (second.max_nodes, second.max_minutes, second.is_default) == (1, 1560, False)
