"""The interface gate: inputs and outputs as declared, and as production's clients use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serving.artifact.manifest import GateRecord, Manifest
from serving.artifact.tensors import TensorSpec
from serving.release.candidate import StagedCandidate
from serving.release.gate import holds
from serving.release.subject import GateSubject


@dataclass(frozen=True)
class InterfaceGate:
    """Triton serves what candidate.json declares, and every request to production still works."""

    required: bool

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        compatible = (f"{name}.compatible",) if subject.production is not None else ()
        return (*compatible, f"{name}.served")

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        if subject.production is not None:
            manifest = subject.production.manifest
            breaks = interface_breaks(manifest, subject.staged)
            detail = "; ".join(breaks)
            detail = detail or f"every request of {manifest.model}/{manifest.version} works"
            if breaks and subject.allow_breaking:
                detail = f"allowed by allow_breaking=true: {detail}"
            yield holds(f"{name}.compatible", not breaks or subject.allow_breaking, detail)
        wrong = served_differences(subject.staged, subject.served().candidate.metadata())
        yield holds(
            f"{name}.served", not wrong, "; ".join(wrong) or "as candidate.json declares it"
        )


def interface_breaks(old: Manifest, new: StagedCandidate) -> list[str]:
    """Changes that a client of `old` would notice; none when every request that worked works."""
    found = []
    pairs = (
        ("input", old.inputs, new.candidate.inputs),
        ("output", old.outputs, new.candidate.outputs),
    )
    for kind, before, after in pairs:
        now = {tensor.name: tensor for tensor in after}
        for tensor in before:
            if tensor.name not in now:
                found.append(f"{kind} {tensor.name} is gone")
            elif not _takes(now[tensor.name], tensor):
                found.append(
                    f"{kind} {tensor.name} was {_shape(tensor)}, is {_shape(now[tensor.name])}"
                )
    known = {tensor.name for tensor in old.inputs}
    added = [
        tensor.name
        for tensor in new.candidate.inputs
        if tensor.name not in known and not tensor.optional
    ]
    return found + [f"input {name} is new and clients do not send it" for name in added]


def served_differences(declared: StagedCandidate, metadata: Mapping[str, Any]) -> list[str]:
    """Tensors that Triton's model `metadata` gives otherwise than candidate.json declares."""
    found = []
    sides = (("inputs", declared.candidate.inputs), ("outputs", declared.candidate.outputs))
    for key, tensors in sides:
        served = {
            tensor["name"]: (tensor["datatype"], tuple(int(size) for size in tensor["shape"]))
            for tensor in metadata[key]
        }
        wanted = {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}
        for name in sorted(served.keys() | wanted.keys()):
            if served.get(name) != wanted.get(name):
                found.append(
                    f"{key} {name}: declared {wanted.get(name)}, served {served.get(name)}"
                )
    return found


def _shape(tensor: TensorSpec) -> str:
    return f"{'optional ' * tensor.optional}{tensor.dtype}{list(tensor.shape)}"


def _takes(now: TensorSpec, before: TensorSpec) -> bool:
    """True when every use of `before` is one of `now`; a required input may become optional."""
    same = (now.dtype, now.shape) == (before.dtype, before.shape)
    return same and (now.optional or not before.optional)
