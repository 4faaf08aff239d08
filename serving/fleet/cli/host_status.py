"""One model on one host: the versions it has, and each drift from production as a sentence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving.fleet.haproxy.edge import READY
from serving.fleet.report.read_rollouts import seconds_of
from serving.fleet.rollout.driver import HostState
from serving.fleet.rollout.instances import instances_text
from serving.fleet.routing import Routing
from serving.triton import model_config
from serving.triton.server import TritonError

_UNAVAILABLE = "UNAVAILABLE"
"""Triton's state of a version that it gave up or could not load: no fault of one nobody wants."""


@dataclass(frozen=True)
class Row:
    """One model on one host. `drift` are sentences; none means all is as it should be.

    `passing` are sentences about what the rollout at work is just changing. `unready` are versions
    in another state than READY, `verified_age_s` seconds since the host verified all it has.
    `instances` is the number of instances of the model there, None where it is not known.
    """

    model: str
    host: str
    region: str
    serving: tuple[int, ...]
    answers: int | None
    production: int | None
    digest: str
    edge: str
    drift: tuple[str, ...]
    passing: tuple[str, ...] = ()
    unready: tuple[tuple[int, str], ...] = ()
    verified_age_s: float | None = None
    memory_bytes: int | None = None
    instances: int | None = None


def drift(
    state: HostState, wanted: int | None, digest: str | None, routed: frozenset[int] = frozenset()
) -> tuple[str, ...]:
    """The faults of one host that should answer with version `wanted` of this `digest`.

    `routed` are versions that its edges give requests to by name; without one the highest that is
    ready answers.
    """
    if state.problem:
        return (state.problem,)
    found = []
    if not state.alive:
        found.append("its Triton does not answer")
    elif routed:
        missing = sorted(routed - set(state.serving))
        found += [f"does not serve {version}, which its edge gives requests" for version in missing]
    elif state.answers != wanted:
        found.append(
            f"answers with {state.answers or 'nothing'}, production is {wanted or 'nothing'}"
        )
    needed = {*routed, wanted, *model_config.versions_in(state.config)}
    found += [
        f"{version} is {text}"
        for version, text in state.unready
        if version in needed or not text.startswith(_UNAVAILABLE)
    ]
    found += [f"{version} answers wrong: {sentence}" for version, sentence in state.golden]
    have = dict(state.packages).get(wanted) if wanted else None
    if wanted and digest and have != digest:
        found.append(
            f"its package {wanted} is {have[:12] if have else 'missing'}, not {digest[:12]}"
        )
    if state.alive and model_config.versions_in(state.config) != state.serving:
        found.append("would serve something else after a restart of its Triton")
    if state.verification and not state.verification.ok:
        faults = "; ".join(state.verification.faults) or "without a reason"
        found.append(f"its verification at {state.verification.at} found: {faults}")
    if state.edge != READY:
        found.append(f"gets no traffic: it is in {state.edge} at the edge")
    elif not state.up:
        found.append("gets no traffic: the edge's checks say it is down")
    return tuple(found)


def routed_versions(routing: Mapping[str, Routing | str], edges: tuple[str, ...]) -> frozenset[int]:
    """The versions that the edges of a host give requests to by name, the canary's too."""
    found = [one for edge in edges if isinstance(one := routing.get(edge), Routing)]
    versions = {one.version for one in found} | {one.canary for one in found if one.percent}
    return frozenset(version for version in versions if version is not None)


def host_row(
    model: str, state: HostState, wanted: int | None, digest: str | None, routed: frozenset[int]
) -> Row:
    """The row of a host that was read as `state`."""
    answers = max(routed & set(state.serving), default=None) if routed else state.answers
    if len(routed) > 1:
        answers = min(routed & set(state.serving), default=None)  # the canary's share is a part
    try:
        found = drift(state, wanted, digest, routed)
    except TritonError as error:
        found = (f"{state.host}: {error}",)
    return Row(
        model,
        state.host,
        state.region,
        state.serving,
        answers,
        wanted,
        dict(state.packages).get(answers, "") if answers else "",
        state.edge if state.up or state.edge != READY else "down",
        found,
        unready=state.unready,
        verified_age_s=_age_s(state),
        memory_bytes=state.memory_bytes,
        instances=state.instances,
    )


def stray_rows(model: str, state: HostState) -> list[Row]:
    """The row of a host outside the model's placement, where it has the model or cannot be read."""
    if not state.problem and not state.has_model:
        return []
    why = state.problem or (
        f"has {model}, which has no place there: fab edges has whether requests still come; then "
        f"fab heal --model {model}"
    )
    edge = state.edge if state.up or state.edge != READY else "down"
    return [
        Row(
            model, state.host, state.region, state.serving, state.answers, None, "", edge, (why,),
            unready=state.unready, verified_age_s=_age_s(state), memory_bytes=state.memory_bytes,
        )
    ]  # fmt: skip


def _age_s(state: HostState) -> float | None:
    """Seconds since the host verified all it has, by its clock and ours; None where not known."""
    try:
        at = seconds_of(state.verification.at) if state.verification else None
    except ValueError:
        return None
    return None if at is None else max(round(time.time() - at, 1), 0.0)


def with_instances(row: Row, count: int | None) -> Row:
    """Its drift with a number of instances that is not `count`, the one of the whole fleet; None
    where nobody knows it."""
    if count is None or row.instances in (None, count):
        return row
    has = instances_text(row.instances, row.model)
    found = f"has {has}, ordered are {count}. Mend it: fab heal --model {row.model}"
    return replace(row, drift=(*row.drift, found))


def with_standby(row: Row, standby: Mapping[str, str]) -> Row:
    """Its drift as what it is on a host on standby: no fault, and mended on its way in."""
    if row.host not in standby:
        return row
    reason = standby[row.host] or "without a reason"
    kept = tuple(one for one in row.drift if not one.startswith("gets no traffic: it is in"))
    back = f"fab scale --hosts N --region {row.region}"
    return replace(row, drift=(), passing=(f"on standby: {reason}. Back: {back}", *kept))


def with_quarantine(row: Row, quarantined: Mapping[str, str]) -> Row:
    """Its drift with the reason of the person who took it out, in the place of the bare state."""
    if row.host not in quarantined:
        return row
    reason = quarantined[row.host] or "without a reason"
    kept = tuple(one for one in row.drift if not one.startswith("gets no traffic: it is in"))
    return replace(
        row, drift=(f"quarantined: {reason}. Back: fab undrain {row.host}", *kept), passing=()
    )
