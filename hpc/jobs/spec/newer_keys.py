"""Keys that are newer than a spec, and the values under which a run does as it did before them.

A key that is added to a training config gets a default in its dataclass: what was done before it.
A spec that was frozen earlier lacks the key, and its own code, from its snapshot, refuses it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from hpc.jobs.spec.config import ClusterConfig, RunConfig

CLUSTER = "cluster"


def newer_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> default, of the keys of the run and its cluster that a plain config lacks."""
    of_cluster = config.get(CLUSTER) or {}
    found = {key: value for key, value in _defaults(RunConfig) if key not in config}
    return found | {
        f"{CLUSTER}.{key}": value
        for key, value in _defaults(ClusterConfig)
        if key not in of_cluster
    }


def with_keys(config: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    """A plain config with the keys of `newer_keys`."""
    made = copy.deepcopy(dict(config))
    for key, value in added.items():
        node, name = _place(made, key)
        node[name] = value
    return made


def without_keys(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """A plain config without these dotted keys of the run and its cluster."""
    made = copy.deepcopy(dict(config))
    for key in names:
        node, name = _place(made, key)
        node.pop(name, None)
    return made


def _place(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key of `newer_keys`, and its name there."""
    group, _, name = key.rpartition(".")
    return (config.setdefault(group, {}) if group else config), name


def _defaults(kind: type[RunConfig | ClusterConfig]) -> Iterator[tuple[str, Any]]:
    for one in fields(kind):
        if one.default is not MISSING:
            yield one.name, one.default
        elif one.default_factory is not MISSING:
            yield one.name, one.default_factory()
