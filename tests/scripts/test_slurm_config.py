"""Slurm's config text: what a site sets is what Slurm is told."""

from __future__ import annotations

import pytest

from conf import compose
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
        "Gres=gpu:2 State=UNKNOWN\n"
    ) in text
    assert "PartitionName=gpu Nodes=n1,n2 Default=YES" in text


def test_the_partition_takes_the_training_users_jobs_only(site: Site) -> None:
    (partition,) = [line for line in slurm.slurm_conf(site, Machine("vm")).splitlines()
                    if line.startswith("PartitionName=")]  # fmt: skip
    assert f"AllowGroups={site.users.train}" in partition.split()


def test_only_slurmdbd_reaches_the_database(site: Site) -> None:
    (folder,) = mariadb.folders(site)
    assert (folder.owner, folder.group, folder.mode) == ("mysql", "slurm", 0o750)
    assert folder.path == mariadb.socket(site).parent


def test_more_nodes_by_config(site: Site) -> None:
    bigger = site_config(compose("site", ["site.slurm.nodes=4", "site.ports.slurmd_base=26820"]))
    text = slurm.slurm_conf(bigger, Machine("vm"))
    assert [line.split()[0] for line in text.splitlines() if line.startswith("NodeName")] == [
        "NodeName=n1", "NodeName=n2", "NodeName=n3", "NodeName=n4",
    ]  # fmt: skip
    assert "NodeName=n4 NodeHostname=vm NodeAddr=127.0.0.1 Port=26824 " in text
    assert len([p for p in slurm.programs(bigger) if p.name.startswith("slurmd-")]) == 4


def test_every_client_asks_the_boxs_own_munged(site: Site) -> None:
    socket = f"{site.root}/run/munge/munge.sock"
    conf = settings(slurm.slurm_conf(site, Machine("vm")))
    assert conf["AuthInfo"] == f"socket={socket}"
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
        f"NodeName=n1,n2 Name=gpu File={site.root}/slurm/gpu/gpu[0-1]\n"
    )


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("idle|none", ""),
        ("mixed|none", ""),
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
