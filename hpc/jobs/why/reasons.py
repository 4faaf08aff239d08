"""Slurm's reason words as sentences: the meaning of each, and what a researcher can do.

All words of job_reason_string() in Slurm 22.05, those of its squeue(1), and the ones that newer
versions added (https://slurm.schedmd.com/job_reason_codes.html). The words of limits, such as
QOSMaxMemoryPerUser, are a language of their own and are taken apart by `_limit`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType

WAIT = "Wait: it starts by itself."
ADMIN = "Ask the cluster's administrator."
RESUBMIT = "Cancel it (lockgate cancel RUN) and submit again with"
RUN_LOGS = "See lockgate logs RUN."


@dataclass(frozen=True)
class Reason:
    """One of Slurm's reasons."""

    word: str
    meaning: str
    """A sentence about the job."""
    advice: str
    """The next thing to do, a sentence with a command, a config key, or whom to ask."""
    never: bool = False
    """True where the job does not start as it is, however long it waits."""


def slurm_reason(text: str) -> Reason:
    """The reason in Slurm's `text`, such as `Priority` or `ReqNodeNotAvail, UnavailableNodes:n1`.

    A word that is not known is passed on, with the command that shows all of the job.
    """
    word = re.split(r"[\s,(]", text.strip().lstrip("("), maxsplit=1)[0].rstrip(")") or "None"
    found = REASONS.get(word.lower()) or _limit(word)
    if found:
        return found
    meaning = f"Slurm gives the reason {word}, which is not in this version's table."
    return Reason(word, meaning, "See scontrol show job ID, or ask the cluster's administrator.")


def _rows() -> tuple[Reason, ...]:
    waits = (
        ("None", "Slurm's scheduler has not looked at it yet.", WAIT),
        ("WaitingForScheduling", "Slurm's scheduler has not looked at it yet.", WAIT),
        ("SchedDefer", "Slurm puts off starting jobs at submit (SchedulerParameters=defer).", WAIT),
        ("Priority", "Jobs of a higher priority are before it in the queue.", WAIT),
        ("Resources", "The nodes that it could use are busy.", "Wait, or ask for less."),
        ("BeginTime", "Its earliest start has not come; a requeued job has one too.", WAIT),
        ("Dependency", "It waits for another job to end first.", "Wait for that job."),
        ("Licenses", "All licenses that it asks for are in use.", "Wait for one."),
        ("Reservation", "Its reservation has not begun.", "Wait for it: scontrol show reservation"),
        ("Configuring", "Its nodes are chosen, and are being made ready.", WAIT),
        ("Cleaning", "Its last attempt is still being cleaned up on its nodes.", WAIT),
        ("Prolog", "The cluster's prolog for it is still running.", WAIT),
        ("PowerNotAvail", "There is not enough electric power for it now.", WAIT),
        ("PowerReserved", "The electric power for it is reserved for others.", WAIT),
        ("FedJobLock", "The clusters of the federation agree on which one runs it.", WAIT),
        ("BurstBufferStageIn", "Its files are being copied into the burst buffer.", WAIT),
        ("BurstBufferResources", "The burst buffer is full.", WAIT),
        ("JobArrayTaskLimit", "As many tasks of its array run as the array allows (%N).", WAIT),
        ("Constraints", "No node with the features that it asks for is free now.",
         "Wait, or ask for other ones: cluster.additional_parameters.constraint"),
        ("NodeDown", "A node that it needs is down.", f"Wait until it is back, or {ADMIN.lower()}"),
        ("FrontEndDown", "No front end node is up to start it.", ADMIN),
        ("ReqNodeNotAvail", "A node that it asks for is down, drained or reserved.",
         "Leave the choice of nodes to Slurm, or ask the cluster's administrator when the node is "
         "back."),
        ("PartitionDown", "Its partition does not start jobs now.",
         "Choose another one (cluster.partition; sinfo lists them), or ask the administrator."),
        ("PartitionInactive", "Its partition neither takes nor starts jobs now.",
         "Choose another one (cluster.partition; sinfo lists them), or ask the administrator."),
        ("BlockMaxError", "A block of the machine has too many hardware errors.", ADMIN),
        ("BlockFreeAction", "A block of the machine is being freed.", WAIT),
        ("AssociationJobLimit", "Your account runs as many jobs as it may.",
         "Wait until one ends; squeue --me lists yours."),
        ("AssociationResourceLimit", "Your account uses as much as it may.",
         "Wait until a job of the account ends, or ask for less."),
        ("QOSJobLimit", "As many jobs run in its QOS as may.", "Wait until one ends."),
        ("QOSResourceLimit", "The jobs of its QOS use as much as they may.",
         "Wait until one ends, or ask for less."),
    )  # fmt: skip
    never = (
        ("JobHeldUser", "You, or a coordinator of your account, put it on hold.",
         "Let it go on: scontrol release ID"),
        ("JobHeldAdmin", "An administrator put it on hold.", ADMIN),
        ("JobHoldMaxRequeue", "Slurm requeued it as often as it may (MaxBatchRequeue).",
         "See why it ended (lockgate logs RUN), then let it go on: scontrol release ID"),
        ("DependencyNeverSatisfied", "The job that it waits for ended in another way.",
         f"{RESUBMIT} another dependency, or none."),
        ("BadConstraints", "No node of the cluster is as it asks.",
         f"{RESUBMIT} a size that a node has: sinfo -o '%P %D %c %m %G'"),
        ("PartitionConfig", "It asks for what its partition does not allow.",
         f"{RESUBMIT} another cluster.partition or a smaller size: scontrol show partition"),
        ("PartitionNodeLimit", "It asks for more nodes than its partition gives or has up.",
         f"{RESUBMIT} fewer cluster.nodes: scontrol show partition"),
        ("PartitionTimeLimit", "Its time limit is longer than its partition allows.",
         f"{RESUBMIT} a shorter cluster.timeout_min; it is requeued at the limit and goes on."),
        ("AccountNotAllowed", "Its account may not use its partition.",
         f"{RESUBMIT} another cluster.account or cluster.partition."),
        ("QOSNotAllowed", "Its QOS may not be used in its partition, or by its account.",
         f"{RESUBMIT} another cluster.qos: sacctmgr show qos"),
        ("InvalidAccount", "Its account does not exist.", f"{RESUBMIT} another cluster.account."),
        ("InvalidQOS", "Its QOS does not exist, or you may not use it.",
         f"{RESUBMIT} another cluster.qos: sacctmgr show qos"),
        ("AssociationTimeLimit", "Your account has used up its time.", ADMIN),
        ("QOSTimeLimit", "Its QOS has used up its time.",
         f"{RESUBMIT} another cluster.qos, or ask the cluster's administrator."),
        ("QOSUsageThreshold", "Your account used too much lately for this QOS.",
         f"{RESUBMIT} another cluster.qos, or wait until the usage has decayed (sshare)."),
        ("AccountingPolicy", "A limit of your account or QOS holds it.",
         f"{ADMIN} sacctmgr show assoc lists the limits."),
        ("MaxMemPerLimit", "It asks for more memory than a CPU or node may have.",
         f"{RESUBMIT} less cluster.mem_gb."),
        ("DeadLine", "It can no longer end before its deadline.",
         f"{RESUBMIT} a later deadline or a shorter cluster.timeout_min."),
        ("ReservationDeleted", "Its reservation was deleted.", f"{RESUBMIT} another one, or none."),
        ("BurstBufferOperation", "An operation of its burst buffer failed.", ADMIN),
    )  # fmt: skip
    ends = (
        ("SystemFailure", "Slurm, a file system or the network failed.",
         f"{ADMIN} The run goes on from its newest checkpoint."),
        ("JobLaunchFailure", "It could not be started on its nodes.",
         "See lockgate logs RUN and lockgate doctor; a file system may be missing on a node."),
        ("NonZeroExitCode", "It ended with an exit code other than 0.", RUN_LOGS),
        ("TimeLimit", "It reached its time limit.",
         "Give it a longer cluster.timeout_min, or a larger cluster.signal_delay_s to save in."),
        ("InactiveLimit", "It was ended because it did nothing (InactiveLimit).", RUN_LOGS),
        ("OutOfMemory", "It used more memory than it asked for.", "Give it more cluster.mem_gb."),
    )  # fmt: skip
    return (
        *(Reason(*row) for row in waits),
        *(Reason(*row, never=True) for row in never),
        *(Reason(*row, never=True) for row in ends),
    )


REASONS = MappingProxyType({row.word.lower(): row for row in _rows()})
"""By the word in lower case: Slurm's versions write `DeadLine` and `Deadline`."""

LIMIT = re.compile(
    r"(?P<owner>QOS|Assoc|)(?P<kind>Grp|Max|Min)(?P<resource>[A-Z][A-Za-z]*?)"
    r"(?P<minutes>RunMinutes|Minutes)?(?P<scope>PerJob|PerNode|PerUser|PerAccount)?"
    r"(?:Limit|NotSatisfied)?"
)
RESOURCES = {  # as in a limit's word: in words, and the key of cluster.* that asks for it
    "cpu": ("CPUs", "cluster.cpus_per_task"),
    "mem": ("memory", "cluster.mem_gb"),
    "memory": ("memory", "cluster.mem_gb"),
    "node": ("nodes", "cluster.nodes"),
    "gres": ("GPUs or other GRES", "cluster.gpus_per_node"),
    "wall": ("wall-clock time", "cluster.timeout_min"),
    "wallduration": ("wall-clock time", "cluster.timeout_min"),
    "license": ("licenses", "cluster.additional_parameters.licenses"),
    "bb": ("burst buffer", "cluster.additional_parameters.bb"),
    "billing": ("billing units", "cluster.nodes or cluster.gpus_per_node"),
    "energy": ("energy", "cluster.nodes or cluster.timeout_min"),
    "unknown": ("a resource of this cluster", "cluster.nodes or cluster.gpus_per_node"),
    "jobs": ("running jobs", ""),
    "submitjob": ("running and waiting jobs", ""),
    "submitjobs": ("running and waiting jobs", ""),
}
SCOPES = {
    "PerJob": "one job",
    "PerNode": "one node",
    "PerUser": "one user",
    "PerAccount": "one account",
}


def _limit(word: str) -> Reason | None:
    """The reason of a limit's word; None for a word of another form."""
    parts = LIMIT.fullmatch(word)
    if parts is None or parts["resource"].lower() not in RESOURCES:
        return None
    resource, key = RESOURCES[parts["resource"].lower()]
    owner = "your account" if parts["owner"] == "Assoc" else "its QOS"
    show = "sacctmgr show assoc" if parts["owner"] == "Assoc" else "sacctmgr show qos"
    what = f"minutes of {resource}" if parts["minutes"] else resource
    key = "cluster.timeout_min" if parts["minutes"] else key
    scope = SCOPES.get(parts["scope"] or "", "")
    if parts["kind"] == "Min":
        meaning = f"It asks for less {what} than {owner} wants of a job."
        return Reason(word, meaning, f"{RESUBMIT} more {key}: {show}", never=True)
    if parts["scope"] in ("PerJob", "PerNode"):
        meaning = f"It asks for more {what} than {owner} gives to {scope}."
        return Reason(word, meaning, f"{RESUBMIT} less {key}: {show}", never=True)
    if parts["kind"] == "Grp" and parts["minutes"] == "Minutes":
        meaning = f"The jobs of {owner} have used up their {what}."
        return Reason(word, meaning, f"{ADMIN} {show} lists the limits.", never=True)
    of = f" for {scope}" if scope else ""
    less = f", or cancel it and ask for less {key}" if key else ""
    meaning = f"{owner[0].upper()}{owner[1:]} allows no more {what} at one time{of}."
    return Reason(word, meaning, f"Wait until one of those jobs ends{less}: {show}")
