"""`fab place`: hosts for each model, by what the hosts, Prometheus and the store show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from omegaconf import DictConfig

from conf.names import nearest
from conf.schema import from_config
from conf.site_placement import Isolation, ModelPlacement, hosts_of
from serving.artifact import store
from serving.artifact.manifest import Manifest, ManifestError
from serving.artifact.store import StoreError
from serving.fleet.capacity.headroom import headroom
from serving.fleet.capacity.knee import knee_of
from serving.fleet.capacity.model_memory import ModelMemory, TritonMemory, model_memory
from serving.fleet.capacity.placement import HostRoom, ModelDemand, gib, hosts_needed, place
from serving.fleet.capacity.proposal import ModelMove, moves, placement_yaml, proposed, steps
from serving.fleet.cli.capacity import CapacityConfig, read_load
from serving.fleet.cli.command import Controls, controls, production
from serving.fleet.errors import FleetConfigError, FleetError, FleetRefusal
from serving.fleet.inventory import Host
from serving.fleet.report.prometheus import PrometheusClient
from serving.fleet.ssh.connection import open_shell
from serving.fleet.ssh.verbs import HostVerbs

_AT_ONCE = 16
_TOTAL = "node_memory_MemTotal_bytes"


@dataclass(frozen=True)
class PlaceConfig:
    """The `place` section of conf/place.yaml."""

    least: int
    """Hosts of each region that serve a model at least."""
    host_memory_mib: int
    """Memory of each host; 0: as its node_exporter gives it."""
    memory_share: float
    """Share of it for models."""
    memory_mib: dict[str, int] = field(default_factory=dict)
    """Memory of one copy of a model, by a person's word."""

    def __post_init__(self) -> None:
        if self.least < 1:
            raise ValueError(f"least={self.least}: must be at least 1")
        if self.host_memory_mib < 0:
            raise ValueError(f"host_memory_mib={self.host_memory_mib}: must not be negative")
        if not 0 < self.memory_share <= 1:
            raise ValueError(f"memory_share={self.memory_share}: must be above 0 and at most 1")
        for model, mib in self.memory_mib.items():
            if mib < 1:
                raise ValueError(f"memory_mib.{model}={mib}: must be at least 1")


@dataclass(frozen=True)
class PlacementProposal:
    """The entries for `site.placement`, with the reason for each model, and what moves."""

    placement: dict[str, ModelPlacement]
    reasons: dict[str, str]
    moves: tuple[ModelMove, ...]
    notes: tuple[str, ...]


def propose_placement(config: DictConfig, alone: str = "", shared: str = "") -> PlacementProposal:
    """Hosts for every model in production; `alone` and `shared` name models by a comma, whose
    isolation is to be that from now on.

    Raises ConfigError, FleetConfigError for a name that is none and for a host of unknown memory,
    FleetRefusal where there is no room.
    """
    on = controls(config)
    settings = from_config(PlaceConfig, config.place, "place")
    capacity = from_config(CapacityConfig, config.capacity, "capacity")
    known = sorted({entry.model for entry in on.journal.read_ledger().entries})
    manifests = {name: one for name in known if (one := _manifest(on, name))}
    if not manifests:
        raise FleetConfigError("nothing is in production: there is no model to place. fab deploy")
    isolation = _isolation(on, manifests, alone, shared)
    prometheus = PrometheusClient(on.prometheus_url, on.passwords)
    rooms = _rooms(on, settings, capacity, prometheus)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = list(pool.map(lambda host: _triton_memory(on, host), on.fleet.hosts))
    memories = [one for one in read if isinstance(one, TritonMemory)]
    notes = [one for one in read if isinstance(one, str)]
    sizes = {name: sum(file.bytes for file in one.files) for name, one in manifests.items()}
    names = [host.name for host in on.fleet.hosts]
    demands, reasons = [], {}
    for name, manifest in manifests.items():
        memory = (
            ModelMemory(settings.memory_mib[name] << 20, "place.memory_mib")
            if name in settings.memory_mib
            else model_memory(name, memories, sizes)
        )
        load, unknown = _load(on, name, manifest, capacity, prometheus)
        before = on.fleet.placement.get(name)
        was: Isolation = before.isolation if before else "shared"
        demands.append(
            ModelDemand(
                name,
                memory.memory_bytes,
                load,
                isolation[name],
                settings.least,
                # Hosts that it shared are none that it has alone.
                hosts_of(on.fleet.placement, name, names)
                if (was, isolation[name]) != ("shared", "alone")
                else (),
            )
        )
        reasons[name] = _reason(demands[-1], memory, unknown, capacity.policy.target)
    found = place(demands, rooms)
    if found.missing:
        raise FleetRefusal(
            f"There is no placement. {' '.join(found.missing)} Add a host (fab add), or free what "
            "they need: fab place --shared MODEL, --set place.memory_share=..."
        )
    wanted = proposed(names, found.hosts, isolation, on.fleet.placement)
    moved = moves(list(manifests), names, on.fleet.placement, wanted)
    return PlacementProposal(wanted, reasons, tuple(moved), tuple(notes))


def placement_lines(found: PlacementProposal) -> list[str]:
    """The proposal as lines for people."""
    lines = [f"# {note}" for note in found.notes]
    for move in found.moves:
        change = "".join(
            f"; {word} {', '.join(hosts)}"
            for word, hosts in (("comes to", move.comes_to), ("leaves", move.leaves))
            if hosts
        )
        lines.append(f"# {move.model}: {found.reasons[move.model]}{change or '; stays'}")
    if all(move.is_none for move in found.moves):
        return [*lines, *placement_yaml(found.placement), "# As configured: nothing moves."]
    return [
        *lines,
        *placement_yaml(found.placement),
        *(f"# {step}" for step in steps(found.moves)),
    ]


def _isolation(
    on: Controls, models: Mapping[str, Manifest], alone: str, shared: str
) -> dict[str, Isolation]:
    found: dict[str, Isolation] = {
        name: on.fleet.placement[name].isolation if name in on.fleet.placement else "shared"
        for name in models
    }
    words: tuple[tuple[str, Isolation], ...] = ((alone, "alone"), (shared, "shared"))
    for text, word in words:
        for name in [part.strip() for part in text.split(",") if part.strip()]:
            if name not in found:
                raise FleetConfigError(
                    f"--{word} {name}: no such model is in production. {nearest(name, found)}."
                )
            found[name] = word
    return found


def _manifest(on: Controls, model: str) -> Manifest | None:
    version = production(on.journal, model)
    if version is None:
        return None
    try:
        return store.get(on.store, model, version).manifest
    except (StoreError, ManifestError) as error:
        raise FleetConfigError(
            f"{model}/{version} is in production, and the store cannot show its size: {error}"
        ) from error


def _rooms(
    on: Controls, settings: PlaceConfig, capacity: CapacityConfig, prometheus: PrometheusClient
) -> list[HostRoom]:
    given = settings.host_memory_mib << 20
    measured = [] if given else prometheus.by_label(f'{_TOTAL}{{job="node"}}')
    why = "Prometheus has no node_exporter of it"
    totals: dict[str, float] = {}
    if isinstance(measured, str):
        why = measured
    else:
        totals = {labels.get("host", ""): value for labels, value in measured}
    rooms = []
    for host in on.fleet.hosts:
        total = given or totals.get(host.name)
        if not total:
            raise FleetConfigError(
                f"the memory of {host.name} is not known: {why}. Type: fab place --set "
                "place.host_memory_mib=65536"
            )
        usable = int(total * settings.memory_share)
        rooms.append(HostRoom(host.name, host.region, usable, capacity.policy.target))
    return rooms


def _triton_memory(on: Controls, host: Host) -> TritonMemory | str:
    """The host's own reading, or a sentence where there is none."""
    try:
        with closing(open_shell(host, on.fleet.ssh_of(host))) as shell:
            facts = HostVerbs(shell).call("facts", "all")
        versions = {
            str(model): sum(state == "READY" for state, _ in one["states"].values())
            for model, one in facts["models"].items()
        }
        resident = int(facts["memory_bytes"] or 0)
    except FleetError as error:
        return f"{error} Its memory is not counted."
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"{host.name}: its answer cannot be read: {error!r}."
    return TritonMemory(host.name, resident, {m: count for m, count in versions.items() if count})


def _load(
    on: Controls,
    model: str,
    manifest: Manifest,
    capacity: CapacityConfig,
    prometheus: PrometheusClient,
) -> tuple[dict[str, float], str]:
    """The model's peak in hosts' worth by region, and a sentence where it is not known."""
    now_s, knee = time.time(), knee_of(manifest)
    load, unknown = {}, ""
    for region in on.fleet.regions:
        seen = read_load(prometheus, model, region.name, capacity, now_s)
        found = headroom(model, region.name, 1, knee, seen, capacity.policy, now_s)
        if found.share is None:
            unknown = "; ".join(found.unknown)
        load[region.name] = found.share or 0.0
    return load, unknown


def _reason(demand: ModelDemand, memory: ModelMemory, unknown: str, carried: float) -> str:
    parts = [f"{gib(memory.memory_bytes)} on each host ({memory.basis})"]
    if unknown:
        parts.append(f"load not counted ({unknown})")
    else:
        needs = ", ".join(
            f"{load:.2g} hosts' worth in {region}, so {hosts_needed(demand, region, carried)}"
            for region, load in demand.load.items()
        )
        parts.append(f"peak of {needs}")
    return f"{demand.isolation}; {'; '.join(parts)}"
