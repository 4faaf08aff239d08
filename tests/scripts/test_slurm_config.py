"""Slurm's config text: what a site sets is what Slurm is told."""

from __future__ import annotations

import pytest

from conf import ConfigError, compose
from conf.site_schema import Site, site_config
from scripts.box import mariadb, slurm
from scripts.box.slurm import Machine


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_nodes_and_partition(site: Site) -> None:
    text = slurm.slurm_conf(site, Machine("vm"))
    assert (
        "NodeName=n2 NodeHostname=vm NodeAddr=127.0.0.1 Port=16822 CPUs=2 RealMemory=8192 "
        "Gres=gpu:2 Weight=1 State=UNKNOWN\n"
    ) in text
    assert "PartitionName=gpu Nodes=n1,n2,n3 Default=YES" in text


def lines_of(site: Site, key: str) -> list[str]:
    text = slurm.slurm_conf(site, Machine("vm"))
    return [line for line in text.splitlines() if line.startswith(f"{key}=")]


def test_every_partition_takes_the_training_users_jobs_only(site: Site) -> None:
    partitions = lines_of(site, "PartitionName")
    assert len(partitions) == 2
    for partition in partitions:
        assert f"AllowGroups={site.users.train}" in partition.split()


def test_jobs_of_one_partition_give_way_to_those_of_the_other(site: Site) -> None:
    words = {line.split()[0]: line.split() for line in lines_of(site, "PartitionName")}
    default, preemptable = words["PartitionName=gpu"], words["PartitionName=preemptable"]
    assert {"PriorityTier=2", "PreemptMode=OFF", "Default=YES"} <= set(default)
    wanted = {"PriorityTier=1", "PreemptMode=REQUEUE", "GraceTime=60", "Default=NO"}
    assert wanted <= set(preemptable)
    assert lines_of(site, "PreemptType") == ["PreemptType=preempt/partition_prio"]
    with pytest.raises(ConfigError, match="preemptable_partition=gpu: is also"):
        site_config(compose("site", ["site.slurm.preemptable_partition=gpu"]))


def test_memory_is_handed_out_and_enforced(site: Site) -> None:
    conf = settings(slurm.slurm_conf(site, Machine("vm")))
    assert conf["SelectTypeParameters"] == "CR_Core_Memory"
    assert "OverMemoryKill" in conf["JobAcctGatherParams"].split(",")
    # Two jobs of one CPU, which ask for no memory, still share a node.
    assert int(conf["DefMemPerCPU"]) * site.slurm.cpus_per_node <= site.slurm.memory_mb_per_node


def test_a_cloud_node_is_declared_like_a_fixed_one_and_given_out_last(site: Site) -> None:
    fixed, cloud = lines_of(site, "NodeName")[1:]
    plain = cloud.replace("n3", "n2").replace("Port=16823", "Port=16822")
    assert plain == fixed.replace("Weight=1 State=UNKNOWN", "Weight=100 State=CLOUD")
    conf = settings(slurm.slurm_conf(site, Machine("vm")))
    assert conf["SuspendExcNodes"] == "n1,n2"
    assert conf["SuspendTime"] == str(site.slurm.suspend_after_s)


def test_a_site_without_cloud_nodes_has_nothing_of_power_saving() -> None:
    none = site_config(compose("site", ["site.slurm.cloud_nodes=0"]))
    text = slurm.slurm_conf(none, Machine("vm"))
    assert "Resume" not in text
    assert "CLOUD" not in text
    assert "cloud-nodes" not in [program.name for program in slurm.programs(none)]
    with pytest.raises(ConfigError, match="cloud_nodes=-1: must be at least 0"):
        site_config(compose("site", ["site.slurm.cloud_nodes=-1"]))


def test_only_slurmdbd_reaches_the_database(site: Site) -> None:
    (folder,) = mariadb.folders(site)
    assert (folder.owner, folder.group, folder.mode) == ("mysql", "slurm", 0o750)
    assert folder.path == mariadb.socket(site).parent


def test_more_nodes_by_config(site: Site) -> None:
    more = ["site.slurm.nodes=4", "site.slurm.cloud_nodes=0", "site.ports.slurmd_base=26820"]
    bigger = site_config(compose("site", more))
    text = slurm.slurm_conf(bigger, Machine("vm"))
    assert [line.split()[0] for line in text.splitlines() if line.startswith("NodeName")] == [
        "NodeName=n1", "NodeName=n2", "NodeName=n3", "NodeName=n4",
    ]  # fmt: skip
    assert "NodeName=n4 NodeHostname=vm NodeAddr=127.0.0.1 Port=26824 " in text
    assert len([p for p in slurm.programs(bigger) if p.name.startswith("slurmd-")]) == 4


def test_every_client_asks_the_boxs_own_munged(site: Site) -> None:
    socket = f"{site.root}/run/munge/munge.sock"
    conf = settings(slurm.slurm_conf(site, Machine("vm")))
    assert conf["AuthInfo"] == f"cred_expire=15,socket={socket}"
    assert conf["AccountingStoragePass"] == socket
    assert settings(slurm.slurmdbd_conf(site, Machine("vm")))["AuthInfo"] == f"socket={socket}"


def test_the_database_has_no_password_and_one_owner(site: Site) -> None:
    conf = settings(slurm.slurmdbd_conf(site, Machine("vm")))
    assert conf["StorageUser"] == "slurm"
    assert "StoragePass" not in conf
    secret = next(file for file in slurm.files(site) if file.path.name == "slurmdbd.conf")
    assert (secret.owner, secret.mode) == ("slurm", 0o600)


def test_fake_gpus_are_files(site: Site) -> None:
    assert slurm.gres_conf(site).endswith(
        f"NodeName=n1,n2,n3 Name=gpu File={site.root}/slurm/gpu/gpu[0-1]\n"
    )


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("idle|none", ""),
        ("mixed|none", ""),
        ("idle~|none", ""),
        ("allocated#|none", ""),
        ("down~|ResumeTimeout reached", "node is down~ (ResumeTimeout reached)"),
        ("idle*|none", "node is idle*"),
        ("drained|gres/gpu count reported lower than configured",
         "node is drained (gres/gpu count reported lower than configured)"),
        ("down*|Not responding", "node is down* (Not responding)"),
        ("", "node is unknown"),
    ],
)  # fmt: skip
def test_a_nodes_state_is_judged(said: str, fault: str) -> None:
    assert slurm.node_fault(said) == fault


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine("vm"), "NoInAddrAny,NoCtldInAddrAny"),
        (Machine("vm", "127.0.1.1"), "NoCtldInAddrAny"),
        (Machine("vm", local=False), None),
    ],
)
def test_it_listens_as_narrowly_as_the_machines_name_allows(
    site: Site, machine: Machine, said: str | None
) -> None:
    conf = settings(slurm.slurm_conf(site, machine))
    assert conf.get("CommunicationParameters") == said
    assert conf["SlurmctldHost"] == f"vm({machine.address})"
