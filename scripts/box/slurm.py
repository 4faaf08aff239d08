"""Slurm: slurmdbd, slurmctld, and one slurmd per node, all on this machine, with fake GPUs.

The last nodes are a cloud's: they are down until a job needs them; see scripts.box.cloud_nodes.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from conf.site_daemons import training_nodes
from conf.site_schema import Site
from scripts.box import cloud_nodes, containers, mariadb, munge
from scripts.box.probe import output_fault, succeeds
from scripts.box.program import File, Folder, Port, Program, Refusal


def nodes(site: Site) -> list[str]:
    """The node names: n1, n2, ..., those of the cloud last."""
    return list(training_nodes(site.slurm.all_nodes))


def fixed_nodes(site: Site) -> list[str]:
    """The names of the nodes that are always up."""
    return nodes(site)[: site.slurm.nodes]


def etc(site: Site) -> Path:
    return site.paths.slurm_conf.parent


def state(site: Site) -> Path:
    return site.root / "slurm"


def client_env(site: Site) -> dict[str, str]:
    """Environment in which a Slurm command finds this cluster."""
    return {"SLURM_CONF": str(site.paths.slurm_conf)}


@dataclass(frozen=True)
class Machine:
    """The machine under its name in Slurm, reached at `address`.

    A daemon of Slurm listens on every address, or on the one that the machine's own name stands
    for; there is no third way. `local`: this is a loopback address, as it is on Debian
    and Ubuntu; in most containers it is not. Whoever can connect still needs the box's munge key.
    """

    name: str
    address: str = "127.0.0.1"
    local: bool = True

    @property
    def communication(self) -> list[str]:
        """Line of slurm.conf that keeps the daemons to the loopback address, or none.

        srun listens for its steps as slurmd does, and they come from 127.0.0.1: where the name
        stands for another loopback address, such as 127.0.1.1, only the controllers can be
        narrowed. See CommunicationParameters in slurm.conf(5).
        """
        if not self.local:
            return []
        every = "NoInAddrAny," if self.address == "127.0.0.1" else ""
        return [f"CommunicationParameters={every}NoCtldInAddrAny"]


def this_machine() -> Machine:
    """This machine's name, and what it stands for."""
    name = socket.gethostname().split(".")[0]
    try:
        found = {info[4][0] for info in socket.getaddrinfo(name, None, socket.AF_INET)}
    except OSError:
        found = set()
    if len(found) == 1 and ip_address(min(found)).is_loopback:
        return Machine(name, str(min(found)))
    return Machine(name, local=False)


def slurm_conf(site: Site, machine: Machine) -> str:
    """slurm.conf of the box on `machine`."""
    slurm = site.slurm
    lines = [
        "# Written by scripts/site up; edit conf/site, not this file.",
        f"ClusterName={slurm.cluster}",
        f"SlurmctldHost={machine.name}({machine.address})",
        f"SlurmUser={site.users.slurm}",
        "SlurmdUser=root",
        f"SlurmctldPort={site.ports.slurmctld}",
        *machine.communication,
        "AuthType=auth/munge",
        # Slurm holds a requeued job until the credentials of its last attempt have expired.
        f"AuthInfo=cred_expire={slurm.credential_expire_s},socket={munge.socket(site)}",
        # Not a password: the munged that clients of slurmdbd use. AuthInfo does not reach them.
        f"AccountingStoragePass={munge.socket(site)}",
        "CredType=cred/munge",
        f"StateSaveLocation={state(site) / 'state'}",
        f"SlurmdSpoolDir={state(site) / 'spool'}/%n",
        f"SlurmctldPidFile={site.paths.run / 'slurm' / 'slurmctld.pid'}",
        f"SlurmdPidFile={site.paths.run / 'slurm'}/slurmd-%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
        f"JobAcctGatherFrequency=task={slurm.memory_check_s}",
        # Ends a step above its memory where no cgroup does. PSS: what ranks of a node share, such
        # as torch's libraries, is counted once.
        "JobAcctGatherParams=OverMemoryKill,UsePss",
        "MpiDefault=none",
        "MailProg=/bin/true",
        # A job must not inherit the odd limits of the shell that it was submitted from.
        "PropagateResourceLimits=NONE",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",
        f"KillWait={slurm.kill_wait_s}",
        "JobRequeue=1",
        "MinJobAge=3600",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=bf_interval=5,sched_interval=10",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        # Of a job that asks for no memory: otherwise it would get all of its nodes'.
        f"DefMemPerCPU={slurm.memory_mb_per_node // slurm.cpus_per_node}",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmctldParameters="
        # A preempted job gets the signal that it asked for (--signal): it saves and requeues.
        "preempt_send_user_signal,"
        # NodeAddr of a cloud's node is right before the node is up.
        "cloud_dns",
        *_power_saving(site),
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={machine.address}",
        f"AccountingStoragePort={site.ports.slurmdbd}",
        "AccountingStorageTRES=gres/gpu",
        "GresTypes=gpu",
    ]
    fixed = fixed_nodes(site)
    lines += [
        f"NodeName={node} NodeHostname={machine.name} NodeAddr={machine.address} "
        f"Port={site.ports.slurmd_base + k} CPUs={slurm.cpus_per_node} "
        f"RealMemory={slurm.memory_mb_per_node} Gres=gpu:{slurm.gpus_per_node} "
        # The lowest weight is given out first.
        + ("Weight=1 State=UNKNOWN" if node in fixed else "Weight=100 State=CLOUD")
        for k, node in enumerate(nodes(site), 1)
    ]
    # Who trains, and nobody else of the machine; root is never refused. The user's own group.
    policy = f"AllowGroups={site.users.train} MaxTime=INFINITE State=UP"
    lines += [
        f"PartitionName={slurm.partition} Nodes={','.join(nodes(site))} Default=YES "
        f"PriorityTier=2 PreemptMode=OFF {policy}",
        f"PartitionName={slurm.preemptable_partition} Nodes={','.join(nodes(site))} Default=NO "
        f"PriorityTier=1 PreemptMode=REQUEUE GraceTime={slurm.preemption_grace_s} {policy}",
    ]
    return "\n".join(lines) + "\n"


def _power_saving(site: Site) -> list[str]:
    """Lines of slurm.conf that bring the cloud's nodes up and let them go; none without them.

    See https://slurm.schedmd.com/power_save.html
    """
    slurm = site.slurm
    if not slurm.cloud_nodes:
        return []
    return [
        f"ResumeProgram={cloud_nodes.program(site, 'resume')}",
        f"SuspendProgram={cloud_nodes.program(site, 'suspend')}",
        f"SuspendTime={slurm.suspend_after_s}",
        f"SuspendTimeout={slurm.kill_wait_s}",
        f"ResumeTimeout={slurm.resume_timeout_s}",
        f"SuspendExcNodes={','.join(fixed_nodes(site))}",
        "PrivateData=cloud",  # nodes that are down are shown, and count at submit
    ]


def slurmdbd_conf(site: Site, machine: Machine) -> str:
    """slurmdbd.conf. The database's socket is in MYSQL_UNIX_PORT: there is no key for it."""
    return "\n".join(
        [
            "# Written by scripts/site up; edit conf/site, not this file.",
            "AuthType=auth/munge",
            f"AuthInfo=socket={munge.socket(site)}",
            f"DbdHost=localhost\nDbdAddr={machine.address}",
            *(["CommunicationParameters=NoInAddrAny"] if machine.local else []),
            f"DbdPort={site.ports.slurmdbd}",
            f"SlurmUser={site.users.slurm}",
            f"PidFile={site.paths.run / 'slurm' / 'slurmdbd.pid'}",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            f"StorageUser={site.users.slurm}",
            f"StorageLoc={site.slurm.db}",
            "",
        ]
    )


def gres_conf(site: Site) -> str:
    """The fake GPUs: character devices, so that Slurm sets CUDA_VISIBLE_DEVICES."""
    last = site.slurm.gpus_per_node - 1
    return (
        "# Written by scripts/site up; edit conf/site, not this file.\nAutoDetect=off\n"
        f"NodeName={','.join(nodes(site))} Name=gpu File={state(site) / 'gpu'}/gpu[0-{last}]\n"
    )


CGROUP_CONF = """\
# Written by scripts/site up. No cgroup is used (proctrack/linuxproc, task/none); without this line
# Slurm looks for systemd's cgroup v2 and gives up where there is none.
CgroupPlugin=cgroup/v1
"""


def files(site: Site) -> list[File]:
    user, machine = site.users.slurm, this_machine()
    return [
        File(etc(site) / "slurm.conf", slurm_conf(site, machine)),
        File(etc(site) / "gres.conf", gres_conf(site)),
        File(etc(site) / "cgroup.conf", CGROUP_CONF),
        containers.file(site),
        *cloud_nodes.files(site),
        # slurmdbd insists on this mode and owner.
        File(etc(site) / "slurmdbd.conf", slurmdbd_conf(site, machine), user, user, 0o600),
    ]


def folders(site: Site) -> list[Folder]:
    user = site.users.slurm
    return [
        Folder(etc(site)),
        Folder(state(site)),
        Folder(state(site) / "state", user, user, 0o700),
        Folder(state(site) / "gpu"),
        Folder(state(site) / "spool"),
        *(Folder(state(site) / "spool" / node) for node in nodes(site)),
        *cloud_nodes.folders(site),
        Folder(site.paths.run / "slurm", user, user),
        containers.state_folder(site),
    ]


def ensure_gpus(site: Site) -> None:
    """Make the fake GPU devices: copies of /dev/null (character device 1:3)."""
    for k in range(site.slurm.gpus_per_node):
        device = state(site) / "gpu" / f"gpu{k}"
        if not device.exists():
            try:
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
            except OSError as error:
                raise Refusal(
                    f"cannot make the device {device} ({error.strerror}): the box's fake GPUs need "
                    "mknod (CAP_MKNOD) and a file system that is not mounted nodev."
                ) from error


def register(site: Site) -> None:
    """Make the cluster known to slurmdbd; slurmctld's jobs are not recorded before that."""
    env = {**os.environ, **client_env(site)}
    listed = subprocess.run(
        ["sacctmgr", "-nP", "list", "cluster", "format=cluster"],
        env=env, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    if site.slurm.cluster not in listed:
        subprocess.run(
            ["sacctmgr", "-i", "add", "cluster", site.slurm.cluster],
            env=env, capture_output=True, text=True, check=True,
        )  # fmt: skip


def programs(site: Site) -> list[Program]:
    env = client_env(site)
    conf = {file.path.name: file for file in files(site)}
    shared = (conf["slurm.conf"], conf["gres.conf"], conf["cgroup.conf"])
    node_files = (*shared, conf["oci.conf"])
    slurm, address = site.users.slurm, this_machine().address
    fixed = fixed_nodes(site)
    return [
        Program(
            name="slurmdbd",
            argv=("/usr/sbin/slurmdbd", "-D"),
            user=slurm,
            env={**env, "MYSQL_UNIX_PORT": str(mariadb.socket(site))},
            files=(conf["slurmdbd.conf"], conf["slurm.conf"]),
            ports=(Port(address, site.ports.slurmdbd, "site.ports.slurmdbd"),),
            needs=("munged", "mariadbd"),
            before=lambda: mariadb.ensure_grants(site),
            probe=succeeds(["sacctmgr", "-nP", "list", "qos", "format=name"], "normal", env),
            stop_wait_s=20,
        ),
        Program(
            name="slurmctld",
            argv=("/usr/sbin/slurmctld", "-D"),
            user=slurm,
            env=env,
            files=shared,
            ports=(Port(address, site.ports.slurmctld, "site.ports.slurmctld"),),
            needs=("munged", "slurmdbd"),
            before=lambda: register(site),
            probe=succeeds(["scontrol", "ping"], "is UP", env),
            stop_wait_s=20,
        ),
        *(
            Program(
                name=f"slurmd-{node}",
                # -b: as booted now. Slurm takes a cloud's node for up once its boot is newer than
                # the wish for it, and this machine was booted before.
                argv=("/usr/sbin/slurmd", "-D", "-N", node, *(() if node in fixed else ("-b",))),
                env=env,
                files=node_files,
                ports=(Port(address, site.ports.slurmd_base + k, "site.ports.slurmd_base"),),
                needs=("slurmctld",),
                probe=output_fault(
                    ["sinfo", "--noheader", "--format=%T|%E", f"--nodes={node}"], node_fault, env
                ),
                on_demand=node not in fixed,
            )
            for k, node in enumerate(nodes(site), 1)
        ),
        *cloud_nodes.programs(site, nodes(site)[site.slurm.nodes :]),
    ]


def node_fault(text: str) -> str:
    """Fault of a node, from `sinfo -o '%T|%E'` ("idle|none"); "" for none.

    `idle~` is a cloud's node that is down, `#` one on its way up and `%` or `!` on its way down.
    """
    state, _, reason = text.splitlines()[0].partition("|") if text else ("unknown", "", "")
    if state.rstrip("~#%!") in ("idle", "mixed", "allocated", "completing", "planned", "reserved"):
        return ""
    return f"node is {state}" + (f" ({reason})" if reason not in ("", "none") else "")
