"""Bring a package onto a host: checked for room, brought once, verified there, moved in by rename.

The signed manifest goes first: the host checks it, and answers which files it lacks. Only those are
sent, or fetched from another host of the region (`fanout` decides), so what is equal in an older
version, or came before a controller was killed, does not travel again.

The order is the safety: bytes arrive in `staging/`, which nobody trusts, through an account that
can do nothing else; the host copies them out of reach, verifies the copy with its own verifier and
its own list of signers, and only then has it in `packages/`. Nothing is hard-linked: a link is a
second way to write to a file that was found good, and the verifier refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from conf.names import shown
from serving.artifact.verify import BESIDE, Refused, plain_files
from serving.fleet.errors import FleetError, FleetRefusal
from serving.fleet.rollout.driver import HostVerification
from serving.fleet.shipment import Shipment
from serving.fleet.ssh.rsync import push
from serving.fleet.ssh.verbs import HostVerbs, PackageRefused

_VERIFY_S = 900
_FETCH_S = 3600
_COPIES = 3
"""A package lies twice on its way in or once, then once in packages/, and once as Triton's copy."""
_SPARE_INODES = 1024


class NoRoom(FleetRefusal):
    """A host lacks disk or shared memory for the package."""


@dataclass(frozen=True)
class GoldenVerdict:
    """The last golden question that a host put to a version of its own: equal or not, and when.

    `at` is UTC in ISO form, `detail` a sentence where it is not `ok`.
    """

    ok: bool
    detail: str
    at: str
    seconds: float


@dataclass(frozen=True)
class Facts:
    """The files of one model on a host. `packages`: digest of each package's manifest.

    `config` is the text of the model's config.pbtxt, None where there is none. Room in bytes.
    `highest` is the highest version ever accepted, `odd` the names that are none of a version.
    `states` are the state and its reason of each version that Triton lists, `memory_bytes` the
    resident memory of Triton and its stubs (None: it does not run), `control` a sentence where its
    control does not answer. `golden` are the host's own last golden questions by version, `work`
    the verb that the host is at now ("" for none): one goes on when its connection is lost.
    `instances` is the number of instances that Triton has loaded, None where no version is ready,
    `max_instances` the most that the host takes.
    """

    packages: dict[int, str]
    installed: tuple[int, ...]
    config: str | None
    disk_free: int
    shm_free: int
    highest: int = 0
    odd: tuple[str, ...] = ()
    verification: HostVerification | None = None
    states: dict[int, tuple[str, str]] = field(default_factory=dict)
    memory_bytes: int | None = None
    control: str = ""
    golden: dict[int, GoldenVerdict] = field(default_factory=dict)
    work: str = ""
    inodes_free: int | None = None
    instances: int | None = None
    max_instances: int | None = None


@dataclass(frozen=True)
class TransferLimits:
    """Room that must remain on a host, in bytes, and the transfer's cap in KiB/s (0: none)."""

    free_disk: int
    free_shm: int
    transfer_kib_s: int = 0


def read_facts(verbs: HostVerbs, model: str) -> Facts:
    """Read the host's facts about `model`. Raises FleetError, Unreachable."""
    content = verbs.call("facts", model)
    try:
        return parse_facts(content, model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FleetError(
            f"{verbs.shell.host.name}: its answer about {model} cannot be read: {error!r}."
        ) from error


def read_memory(verbs: HostVerbs) -> int | None:
    """Resident bytes of the host's Triton, None where it does not run. Raises FleetError."""
    found = verbs.call("memory").get("memory_bytes")
    try:
        return _number(found)
    except (TypeError, ValueError):
        raise FleetError(f"{verbs.shell.host.name}: {found!r:.40} is no memory in bytes.") from None


def parse_facts(content: dict[str, Any], model: str) -> Facts:
    """The content of an answer to `facts`. Raises KeyError, TypeError, ValueError."""
    found = content["models"][model]
    config, memory = found["config"], content["memory_bytes"]
    return Facts(
        {int(version): str(digest) for version, digest in found["packages"].items()},
        tuple(sorted(int(version) for version in found["installed"])),
        None if config is None else str(config),
        int(content["disk_free"]),
        int(content["shm_free"]),
        int(found["highest"]),
        tuple(str(name) for name in found["odd"]),
        _verification(content["verified"]),
        {int(v): (str(state), str(reason)) for v, (state, reason) in found["states"].items()},
        _number(memory),
        str(content["control"]),
        {int(version): _golden(one) for version, one in found["golden"].items()},
        str(content["work"]),
        int(content["inodes_free"]) if "inodes_free" in content else None,
        _number(found.get("instances")),
        _number(content.get("max_instances")),
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _golden(one: dict[str, Any]) -> GoldenVerdict:
    return GoldenVerdict(bool(one["ok"]), str(one["detail"]), str(one["at"]), float(one["seconds"]))


def _verification(record: dict[str, Any] | None) -> HostVerification | None:
    if record is None:
        return None
    faults = tuple(fault_sentence(fault) for fault in record["faults"])
    return HostVerification(str(record["at"]), bool(record["ok"]) and not faults, faults)


def fault_sentence(fault: dict[str, Any]) -> str:
    """One fault of a host's verification, for people."""
    version = f"/{fault['version']}" if fault["version"] is not None else ""
    what = f"{fault['model']}{version}"
    return f"{what} in its {fault['where']}: {fault['reason']}: {fault['detail']}"


@dataclass(frozen=True)
class Arrival:
    """A package that is on a host and verified: how it came, for people, and the bytes from here.

    `source` is the host that it was fetched from, "" where it came from the controller.
    """

    sentence: str
    sent_bytes: int = 0
    source: str = ""


def check_room(host: str, facts: Facts, size: int, limits: TransferLimits, files: int = 0) -> None:
    """Raises NoRoom unless `size` more bytes in `files` leave the host as free as `limits` wants.

    A host that knows no number of inodes has enough.
    """
    if facts.inodes_free is not None and facts.inodes_free < files + _SPARE_INODES:
        raise NoRoom(
            f"{host}: {facts.inodes_free} inodes are free on its disk; the package takes {files} "
            f"and {_SPARE_INODES} must remain. Nothing was changed: remove small files there."
        )
    if facts.disk_free < size + limits.free_disk:
        raise NoRoom(
            f"{host}: {facts.disk_free >> 20} MiB of disk are free; the package takes "
            f"{size >> 20} MiB and {limits.free_disk >> 20} MiB must remain "
            "(rollout.free_disk_mib). Nothing was changed."
        )
    if facts.shm_free < limits.free_shm:
        raise NoRoom(
            f"{host}: {facts.shm_free >> 20} MiB of /dev/shm are free, "
            f"{limits.free_shm >> 20} MiB are wanted (rollout.free_shm_mib). Regions left by a "
            "killed Triton are removed by its next start: fab restart. Nothing was changed."
        )


def stage(verbs: HostVerbs, shipment: Shipment, limits: TransferLimits, rollback: bool) -> str:
    """Have the verified package in the host's `packages/`, from here; returns how, for people.

    Raises NoRoom, PackageRefused (the host then has nothing of it), FleetError, Unreachable.
    """
    if is_ready(verbs, shipment, limits, rollback):
        return "already there and verified"
    return send(verbs, shipment, limits, rollback).sentence


def is_ready(verbs: HostVerbs, shipment: Shipment, limits: TransferLimits, rollback: bool) -> bool:
    """True when the host has the package, verified just now; else it is ready to receive it.

    Raises NoRoom, PackageRefused, FleetError, Unreachable.
    """
    check_names(shipment)
    host = verbs.shell.host.name
    facts = read_facts(verbs, shipment.model)
    comes = facts.packages.get(shipment.version) != shipment.digest
    # One that is there already may still have to be copied for Triton.
    copies = _COPIES if comes else int(shipment.version not in facts.installed)
    check_room(host, facts, copies * shipment.size, limits, copies * len(shipment.manifest.files))
    ready = _call(verbs, "prepare", shipment, rollback)["ready"]
    if ready is not None:
        _same(host, ready, shipment)
    return ready is not None


def check_names(shipment: Shipment) -> None:
    """Raises PackageRefused unless the store has exactly the files of the manifest, all plain.

    A host takes by content what it lacks: it would never see that a file is lost or strange here.
    """
    listed = {entry.path for entry in shipment.manifest.files}
    try:
        present = {name for name, _ in plain_files(shipment.path)} - set(BESIDE)
        if lost := sorted(listed - present):
            raise Refused("missing-file", f"{lost[0]} is in the manifest and not in the store")
        if strange := sorted(present - listed):
            raise Refused("extra-file", f"{shown(strange[0])} is in the store, not in the manifest")
    except Refused as error:
        raise PackageRefused(
            f"{shipment} in the store is not what was released: {error.reason}: {error}. Nothing "
            "was sent; release it again.",
            error.reason,
        ) from error


def send(verbs: HostVerbs, shipment: Shipment, limits: TransferLimits, rollback: bool) -> Arrival:
    """Send from here what a host that is ready to receive lacks, and have it accepted.

    Raises PackageRefused (the host then has nothing of it), FleetError, Unreachable.
    """
    beside = [name for name in BESIDE if (shipment.path / name).exists()]
    kib_s = limits.transfer_kib_s
    sent = push(verbs.shell, shipment, beside, kib_s)
    lacking = _call(verbs, "missing", shipment, rollback)["files"]
    # A host chooses among the files of the package, and cannot name others of this machine.
    paths = [entry.path for entry in shipment.manifest.files if entry.path in lacking]
    if paths:
        sent += push(verbs.shell, shipment, paths, kib_s)
    _accept(verbs, shipment, rollback)
    return Arrival(f"{_mib(sent)} sent of {_mib(shipment.size)}, verified", sent)


def fetch(
    verbs: HostVerbs, shipment: Shipment, limits: TransferLimits, rollback: bool, source: str
) -> Arrival:
    """Have a host that is ready to receive fetch what it lacks from `source`, and accept it.

    `source` must have offered it. Raises FleetError, PackageRefused, Unreachable.
    """
    named = (shipment.model, shipment.version, shipment.digest, source)
    content = verbs.call(
        "fetch", *named, rollback=rollback, timeout_s=_FETCH_S, limit_kib_s=limits.transfer_kib_s
    )
    _accept(verbs, shipment, rollback)
    came = f"{_mib(int(content['bytes']))} of {_mib(shipment.size)}"
    return Arrival(f"{came} fetched from {source}, none sent, verified", 0, source)


def _accept(verbs: HostVerbs, shipment: Shipment, rollback: bool) -> None:
    digest = _call(verbs, "accept", shipment, rollback)["digest"]
    _same(verbs.shell.host.name, digest, shipment)


def _call(verbs: HostVerbs, verb: str, shipment: Shipment, rollback: bool) -> dict[str, Any]:
    named = (shipment.model, shipment.version)
    return verbs.call(verb, *named, rollback=rollback, timeout_s=_VERIFY_S)


def _same(host: str, digest: object, shipment: Shipment) -> None:
    if digest != shipment.digest:
        raise PackageRefused(
            f"{host} refused {shipment}: changed-manifest: it is signed, but not what was read "
            "here",
            "changed-manifest",
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
