"""Free room on nodes from `scontrol show node`, and the largest request that has room there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpc.jobs.why.capacity import FreeNode, JobSize, free_nodes, largest_fitting
from hpc.jobs.why.wait import nodes_for

GPU = frozenset({"gpu"})
NODE = (
    "NodeName=n1 Arch=x86_64 CoresPerSocket=8  CPUAlloc=3 CPUEfctv=14 CPUTot=16 CPULoad=0.10 "
    "AvailableFeatures=(null) ActiveFeatures=(null) Gres=gpu:a100:4(S:0-1) GresDrain=N/A "
    "GresUsed=gpu:a100:1(IDX:0) NodeAddr=10.0.0.1 NodeHostName=n1 Port=6818 Version=22.05.8 "
    "OS=Linux 6.1.0 #1 SMP Debian  RealMemory=64000 AllocMem=8000 FreeMem=50000 Sockets=2 Boards=1 "
    "MemSpecLimit=1000 State=MIXED ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A "
    "Partitions=gpu,all BootTime=2026-11-27T08:00:00 CfgTRES=cpu=14,mem=64000M,gres/gpu=4 "
    "AllocTRES=cpu=3,mem=8000M,gres/gpu=1 Comment=State=DOWN RealMemory=1 "
)


def node(cpus: int = 2, memory_mb: int = 4096, gpus: int = 1, name: str = "n1") -> FreeNode:
    return FreeNode(name, GPU, cpus, memory_mb, gpus)


def test_the_room_of_a_node() -> None:
    assert free_nodes(NODE + "\n") == [
        FreeNode("n1", frozenset({"gpu", "all"}), 11, 55000, 3)
    ]  # fmt: skip


def test_only_nodes_that_take_jobs_have_room() -> None:
    def found(state: str) -> bool:
        return bool(free_nodes(NODE.replace("State=MIXED ", f"State={state} ", 1)))

    assert all(map(found, ("IDLE", "MIXED", "IDLE+CLOUD+POWERED_DOWN", "IDLE+CLOUD")))
    no = ("DOWN", "DOWN*", "IDLE*", "IDLE+DRAIN", "MIXED+DRAIN", "ALLOCATED", "IDLE+RESERVED")
    assert not any(map(found, (*no, "IDLE+MAINTENANCE", "IDLE+NOT_RESPONDING", "FUTURE", "")))


def test_an_odd_line_costs_itself_alone() -> None:
    odd = ("", "No nodes", "NodeName=n2 State=IDLE", "NodeName=n3 CPUTot=x CPUAlloc=0 State=IDLE")
    assert [one.name for one in free_nodes("\n".join((*odd, NODE, *odd)))] == ["n1"]


def test_nodes_of_a_partition() -> None:
    nodes = [node(name="n1"), FreeNode("n2", frozenset({"cpu"}), 1, 1, 0)]
    assert [one.name for one in nodes_for(nodes, "gpu", [])] == ["n1"]
    assert [one.name for one in nodes_for(nodes, "cpu,gpu", [])] == ["n1", "n2"]
    assert [one.name for one in nodes_for(nodes, "", ["n1"])] == ["n2"]


def test_one_node_where_two_were_asked() -> None:
    asked = JobSize(2, 1, 2, 1, 2048)
    size = largest_fitting(asked, [node()])
    assert size == JobSize(1, 1, 2, 1, 2048)
    assert size.overrides(asked) == ("cluster.nodes=1",)


def test_all_ranks_on_one_node_come_before_fewer_ranks() -> None:
    asked = JobSize(2, 1, 1, 0, 1024)
    size = largest_fitting(asked, [node(cpus=2, gpus=0)])
    assert size == JobSize(1, 2, 1, 0, 2048)
    assert size.overrides(asked) == (
        "cluster.nodes=1", "cluster.tasks_per_node=2", "cluster.mem_gb=2",
    )  # fmt: skip


def test_fewer_cpus_and_less_memory_keep_the_ranks() -> None:
    asked = JobSize(2, 1, 4, 1, 8192)
    nodes = [node(2, 4096, 1, "n1"), node(2, 4096, 1, "n2")]
    size = largest_fitting(asked, nodes, ranks=2)
    assert size == JobSize(2, 1, 2, 1, 4096)
    assert size.overrides(asked) == ("cluster.cpus_per_task=2", "cluster.mem_gb=4")


def test_a_checkpoint_fits_no_other_number_of_ranks() -> None:
    asked = JobSize(2, 1, 1, 1, 1024)
    assert largest_fitting(asked, [node(gpus=1)]) == JobSize(1, 1, 1, 1, 1024)
    assert largest_fitting(asked, [node(gpus=1)], ranks=2) is None


def test_a_rank_keeps_its_gpu() -> None:
    assert largest_fitting(JobSize(1, 1, 1, 1, 0), [node(gpus=0)]) is None
    assert largest_fitting(JobSize(1, 1, 1, 1, 0), []) is None


SIZES = st.builds(
    JobSize,
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 8), st.integers(0, 4),
    st.sampled_from([0, 512, 3000, 8192]),
)  # fmt: skip
NODES = st.lists(
    st.builds(node, st.integers(0, 16), st.integers(0, 20000), st.integers(0, 8)), max_size=5
)


@given(SIZES, NODES)
def test_what_is_found_fits_and_asks_for_no_more(asked: JobSize, free: list[FreeNode]) -> None:
    size = largest_fitting(asked, free)
    if sum(map(asked.fits, free)) >= asked.nodes:
        assert size == asked
    if size is not None:
        assert sum(map(size.fits, free)) >= size.nodes
        assert size.ranks <= asked.ranks and size.nodes <= asked.nodes
        assert size.cpus_per_task <= asked.cpus_per_task
        assert (
            size.gpus_per_node * asked.tasks_per_node >= size.tasks_per_node * asked.gpus_per_node
        )
        assert (size == asked) == (size.overrides(asked) == ())
