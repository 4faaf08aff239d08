"""The memory that a model takes on a host, as far as hosts and packages show it.

A host measures its Triton as a whole. Where one model is alone there, that is the model's; of a
Triton with several, each has the part that its packages are of all that it serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serving.fleet.capacity.placement import gib


@dataclass(frozen=True)
class TritonMemory:
    """Resident bytes of a host's Triton, and the number of versions that it serves, by model."""

    host: str
    resident_bytes: int
    versions: Mapping[str, int]


@dataclass(frozen=True)
class ModelMemory:
    """Bytes of one model on one host, and where that comes from, for people."""

    memory_bytes: int
    basis: str


def model_memory(
    model: str, hosts: Iterable[TritonMemory], package_bytes: Mapping[str, int]
) -> ModelMemory:
    """The most that any host shows; those where the model is alone count before all others.

    Never less than its package. Where no host serves it, it is twice its package: the version in
    production, and the one before it.
    """
    serving = [one for one in hosts if one.versions.get(model)]
    alone = [one for one in serving if set(one.versions) == {model}]
    package = package_bytes.get(model, 0)
    if not serving:
        return ModelMemory(2 * package, f"no host serves it: twice its package, {gib(package)}")
    sized = [(_part(model, one, package_bytes), one) for one in alone or serving]
    most, host = max(sized, key=lambda pair: pair[0])
    if most < package:
        return ModelMemory(package, f"its package, which is more than {host.host} shows")
    if alone:
        return ModelMemory(most, f"measured on {host.host}")
    return ModelMemory(
        most,
        f"its part, by size, of {gib(host.resident_bytes)} on {host.host} for "
        f"{len(host.versions)} models",
    )


def _part(model: str, host: TritonMemory, package_bytes: Mapping[str, int]) -> int:
    sizes = {one: package_bytes.get(one, 0) * count for one, count in host.versions.items()}
    whole = sum(sizes.values())
    share = sizes[model] / whole if whole else 1 / len(sizes)
    return round(host.resident_bytes * share)
