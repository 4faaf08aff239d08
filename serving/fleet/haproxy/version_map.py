"""The version that the edge gives to a request without one: a map of HAProxy, and its counters.

`<state>/routes.map` has a line `MODEL STABLE:CANARY:SHARE` for each routed model: two versions, 0
for none, and the canary's share of the requests in hundredths of a percent; `:SHADOW:SHARE` follows
where copies go to a third one. One value, so that one command changes it as a whole. HAProxy reads
the file at start; at run time its memory counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from serving.edge_host.names import COUNTERS, MODEL, ROUTE, ROUTES
from serving.fleet.routing import Routing, VersionCounters

LANE_HEADER, LANE_COOKIE = "Lockgate-Lane", "lockgate-lane"
"""A client's own choice: `canary` or `stable`; the header goes before the cookie."""
VERSION_HEADER = "Lockgate-Version"
"""Header of an answer whose version the edge chose."""

_MODEL, _VALUE = re.compile(MODEL), re.compile(ROUTE)
_PATH = re.compile(r"/[A-Za-z0-9._/-]+")
_COUNT = re.compile(r"(\w+)=(\S+)")


def map_value(routing: Routing) -> str:
    """The value of a model in the map."""
    value = f"{routing.version or 0}:{routing.canary or 0}:{round(routing.percent * 100)}"
    if routing.shadow is None:
        return value
    return f"{value}:{routing.shadow}:{round(routing.shadow_percent * 100)}"


def parse_value(value: str) -> Routing:
    """The routing of `map_value`. Raises ValueError."""
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{value!r} is no STABLE:CANARY:SHARE")
    numbers = [int(number) for number in value.split(":")]
    stable, canary, share, shadow, copied = [*numbers, 0, 0][:5]
    return Routing(stable or None, canary or None, share / 100, shadow or None, copied / 100)


def map_text(routes: Mapping[str, Routing]) -> str:
    """The map as a file; a model whose requests are left as they are has no line."""
    lines = (f"{checked_model(name)} {map_value(one)}\n" for name, one in sorted(routes.items())
             if one != Routing())  # fmt: skip
    return "".join(lines)


def parse_map(text: str) -> dict[str, Routing]:
    """The routes of a file. Raises ValueError for a line that is none."""
    routes = {}
    for line in text.splitlines():
        model, _, value = line.partition(" ")
        routes[checked_model(model)] = parse_value(value)
    return routes


def parse_shown(answer: str) -> dict[str, Routing]:
    """The routes of HAProxy's answer to `show map`. Raises ValueError."""
    rows = [line.split(" ", 1)[-1] for line in answer.splitlines() if line]
    return parse_map("\n".join(rows))


def checked_model(name: str) -> str:
    """`name`, which goes into commands and files as it is. Raises ValueError for another word."""
    if not _MODEL.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a model")
    return name


def parse_counters(answer: str, model: str) -> dict[int, VersionCounters]:
    """The counters of `model` by version, of HAProxy's answer to `show table`."""
    counted = {}
    for line in answer.splitlines():
        fields = dict(_COUNT.findall(line))
        name, _, version = fields.get("key", "").rpartition("/")
        if name == model and version.isdecimal():
            mistakes = int(fields["http_err_cnt"]) - int(fields["gpc0"])
            counted[int(version)] = VersionCounters(
                requests=int(fields["http_req_cnt"]) - mistakes,
                errors=int(fields["http_fail_cnt"]) + int(fields["gpc0"]),
            )
    return counted


def version_rules(state: Path, condition: str, share_condition: str) -> list[str]:
    """Rules that set `txn.version`, given `txn.model`, for the requests of `condition`.

    Where nothing is routed the variable is not there. A share is drawn for requests of
    `share_condition` only; a lane that a client chose counts for all. Raises ValueError for a
    folder whose name HAProxy would not read as one word.
    """
    path = state / ROUTES
    if not _PATH.fullmatch(str(path)):
        raise ValueError(f"state={state}: may have letters, digits and . _ - / only")
    return [
        f"  http-request set-var(txn.route) var(txn.model),map({path}) if {condition}",
        "  acl routed var(txn.route) -m found",
        "  http-request set-var(txn.stable) var(txn.route),field(1,:) if routed",
        "  http-request set-var(txn.canary) var(txn.route),field(2,:) if routed",
        "  http-request set-var(txn.share) var(txn.route),field(3,:) if routed",
        f"  http-request set-var(txn.lane) req.cook({LANE_COOKIE}) if routed",
        f"  http-request set-var(txn.lane) req.hdr({LANE_HEADER}) "
        f"if routed {{ req.hdr({LANE_HEADER}) -m found }}",
        "  acl has_canary var(txn.canary),add(0) gt 0",
        "  acl lane_canary var(txn.lane) -m str canary",
        "  acl lane_stable var(txn.lane) -m str stable",
        "  acl drawn rand(10000),sub(txn.share) lt 0",
        "  acl has_stable var(txn.stable),add(0) gt 0",
        "  http-request set-var(txn.version) var(txn.stable) if routed has_stable",
        "  http-request set-var(txn.version) var(txn.canary) if routed has_canary lane_canary",
        "  http-request set-var(txn.version) var(txn.canary) "
        f"if routed has_canary !lane_canary !lane_stable {share_condition} drawn",
    ]


def path_rules(state: Path) -> list[str]:
    """Rules that put the version into the path of a request that named none, and count it.

    Of the frontend they use the names `read_path` and `infer_path`. Whoever reads a model's
    readiness or metadata gets those of the stable version.
    """
    return [
        # The fifth part of /v2/models/M/versions/N/infer: what the client wrote stays.
        "  acl own_version path,field(5,/) -m str versions",
        "  acl has_model var(txn.model) -m found",
        *version_rules(state, "has_model !own_version", "infer_path"),
        "  acl given_version var(txn.version) -m found",
        "  http-request replace-path ^(/v2/models/[^/]+)(/[a-z]+)?$ "
        r"\1/versions/%[var(txn.version)]\2 if given_version",
        *count_rules("given_version infer_path"),
        f"  http-after-response set-header {VERSION_HEADER} %[var(txn.version)] "
        "if { var(txn.version) -m found }",
    ]


def count_rules(condition: str) -> list[str]:
    """Rules that count the requests of `condition` in the table of versions."""
    return [
        f"  http-request set-var-fmt(txn.counted) %[var(txn.model)]/%[var(txn.version)] "
        f"if {condition}",
        f"  http-request track-sc2 var(txn.counted) table {COUNTERS} "
        "if { var(txn.counted) -m found }",
        # Of 4xx this one is not the client's: the edge chose a version that the host has not.
        "  http-response sc-inc-gpc0(2) if { status 404 } { var(txn.counted) -m found }",
    ]


def counter_table() -> list[str]:
    """The table of `COUNTERS`: only what the map holds is counted, so that it stays small."""
    return [
        f"backend {COUNTERS}",
        "  stick-table type string len 80 size 10k store "
        "gpc0,http_req_cnt,http_err_cnt,http_fail_cnt",
    ]
