"""Everything on a host against the signed manifests: its packages, and what Triton may load.

At Triton's start what fails is taken out of the repository; at any other time it is named only,
because a running model is not to be taken from clients by a check.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from serving.host import repository, snapshots, state
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.host.packages import numbered, verified_package
from serving.host.trees import remove_tree
from serving.triton.model_config import ModelConfigError, versions_in

_CHANGED = "changed-file"
Fault = dict[str, Any]
"""{model, version or None, where: packages or repository, reason, detail}."""


def verify_host(home: HostHome, take_out: bool) -> dict[str, Any]:
    """Verify every model, record it and return the record of `state.write_verification`."""
    faults = [fault for model in model_names(home) for fault in model_faults(home, model, take_out)]
    return state.write_verification(home, faults)


def with_changes(
    home: HostHome, record: dict[str, Any] | None, models: Iterable[str]
) -> dict[str, Any] | None:
    """The record of the last verification, with what was touched since in the copies of `models`.

    While a command changes the host, what it has half done is no fault.
    """
    if record is None or state.work_in_hand(home):
        return record
    named = {(model, v) for model in models for v in numbered(home.repository / model).versions}
    kept = [
        fault
        for fault in record["faults"]
        if fault["reason"] != _CHANGED or (fault["model"], fault["version"]) not in named
    ]
    fresh = [
        _fault(model, version, "repository", _CHANGED, detail)
        for model, version in sorted(named)
        if (detail := snapshots.fault_since(home, model, version))
    ]
    return {**record, "ok": not kept and not fresh, "faults": kept + fresh}


def model_names(home: HostHome) -> list[str]:
    """Every name in the packages and in the repository."""
    folders = (home.packages, home.repository)
    return sorted({path.name for folder in folders for path in repository.models_in(folder)})


def model_faults(home: HostHome, model: str, take_out: bool) -> list[Fault]:
    """The faults of one model. With `take_out` the repository then has only what is verified."""
    faults: list[Fault] = []
    good: set[int] = set()
    for version in numbered(home.packages / model).versions:
        try:
            verified_package(home, model, version)
            good.add(version)
        except HostRefusal as refusal:
            faults.append(_fault(model, version, "packages", refusal.reason, str(refusal)))
    folder = home.repository / model
    if folder.is_dir() and not folder.is_symlink():
        faults += _repository_faults(home, model, good, take_out)
    elif folder.is_symlink() or folder.exists():
        faults.append(_fault(model, None, "repository", "odd-file", "is not a folder"))
        if take_out:
            remove_tree(folder)
    return faults


def _repository_faults(home: HostHome, model: str, good: set[int], take_out: bool) -> list[Fault]:
    faults = []
    fit: set[int] = set()
    for version in numbered(home.repository / model).versions:
        if version not in good:
            reason, detail = "unverified", "no verified package stands behind it"
        elif detail := repository.difference(home, model, version):
            reason = _CHANGED
        else:
            snapshots.remember_tree(home, model, version)
            fit.add(version)
            continue
        faults.append(_fault(model, version, "repository", reason, detail))
        if take_out:
            remove_tree(home.installed(model, version))
    wanted, fault = _persisted(home, model, fit)
    if fault:
        faults.append(_fault(model, None, "repository", *fault))
        if take_out:
            repository.persist(home, model, wanted)
    return faults


def _persisted(
    home: HostHome, model: str, fit: set[int]
) -> tuple[tuple[int, ...], tuple[str, str] | None]:
    """The versions that the config may name, and the (reason, detail) of its fault."""
    text = repository.persisted_text(home, model)
    if text is None:
        return (), None
    try:
        named = versions_in(text)
    except ModelConfigError as error:
        return (), ("changed-config", str(error))
    wanted = tuple(version for version in named if version in fit)
    if wanted != named or not wanted:
        missing = ", ".join(str(v) for v in named if v not in fit) or "no version"
        return wanted, ("unverified", f"its config.pbtxt names {missing} without verified files")
    if text != repository.config_text(home, model, wanted):
        return wanted, ("changed-config", "config.pbtxt is not that of the verified package")
    return wanted, None


def _fault(model: str, version: int | None, where: str, reason: str, detail: str) -> Fault:
    shown = ascii(model)[1:-1]
    return {
        "model": shown, "version": version, "where": where, "reason": reason, "detail": detail,
    }  # fmt: skip
