"""The states of hosts as HAProxy shows them, and as it reads them when it starts.

`<state>/servers.state` has HAProxy's own form (management guide, section 9.3), of those hosts only
that a rollout took out of traffic: the others start as the config has them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass

from serving.edge_host.names import ROUTES, STATES
from serving.fleet.haproxy.placed_models import model_backend

FIRST_FILES = {ROUTES: "", STATES: "1\n"}
"""The state folder's files before anything was set; HAProxy does not start without the first."""
READY, DRAIN, MAINT = "ready", "drain", "maint"

# Bits of srv_admin_state in `show servers state`: those that were set, and all.
_SET_MAINT, _SET_DRAIN = 0x01, 0x08
_ANY_MAINT, _ANY_DRAIN = 0x01 | 0x02 | 0x04 | 0x20 | 0x40, 0x08 | 0x10
_RUNNING = 2
_NAME, _ADDRESS, _OPERATIONAL, _ADMIN, _WEIGHT = 3, 4, 5, 6, 7


@dataclass(frozen=True)
class ServerState:
    """One host as its edge sees it. `admin` is the state that was set, `up` the verdict of
    the checks. `backup` is true for a host of another region, which takes requests only when
    none of the own ones does.

    `sessions` are requests in flight, `queued` those that wait for this host; `requests` and
    `errors` count since HAProxy started (errors: 5xx answers, failed connections and responses),
    over all backends that send to it.
    """

    admin: str
    up: bool
    sessions: int
    queued: int
    requests: int
    errors: int
    backup: bool = False

    @property
    def takes_traffic(self) -> bool:
        """True when new requests may come to it now."""
        return self.up and self.admin == READY


def parse_states(servers_state: str, stat: str, backend: str) -> dict[str, ServerState]:
    """Every host of `backend`, of the answers to `show servers state` and `show stat`."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(stat.removeprefix("# ").splitlines()):
        if row["pxname"] == backend or row["pxname"].startswith((f"{backend}_", f"{backend}:")):
            rows.setdefault(row["svname"], []).append(row)
    found = {}
    for fields in _servers(servers_state, backend):
        name, admin = fields[_NAME], int(fields[_ADMIN])
        own = rows.get(name, [])
        found[name] = ServerState(
            admin=MAINT if admin & _ANY_MAINT else DRAIN if admin & _ANY_DRAIN else READY,
            up=int(fields[_OPERATIONAL]) == _RUNNING,
            sessions=_total(own, "scur"),
            queued=_total(own, "qcur"),
            requests=_total(own, "stot"),
            errors=_total(own, "hrsp_5xx") + _total(own, "econ") + _total(own, "eresp"),
            backup=any(row["pxname"] == backend and row.get("bck") == "1" for row in own),
        )
    return found


def parse_kept(servers_state: str, backend: str) -> dict[str, str]:
    """The hosts that were taken out, with their state, of a file or HAProxy's own answer."""
    kept = {}
    for fields in _servers(servers_state, backend):
        admin = int(fields[_ADMIN])
        if admin & (_SET_MAINT | _SET_DRAIN):
            kept[fields[_NAME]] = MAINT if admin & _SET_MAINT else DRAIN
    return kept


def parse_receivers(servers_state: str, backend: str, model: str) -> frozenset[str]:
    """The hosts that requests for `model` may go to, also as stand-ins, whatever their state."""
    own = list(_servers(servers_state, model_backend(backend, model)))
    shared = [fields for fields in _servers(servers_state, backend) if int(fields[_WEIGHT])]
    return frozenset(fields[_NAME] for fields in own or shared)


def states_file(servers_state: str) -> str:
    """The file for `STATES`, of HAProxy's answer to `show servers state`."""
    lines = servers_state.splitlines()
    kept = []
    for line in lines[2:]:
        fields = line.split()
        if len(fields) > _ADMIN and int(fields[_ADMIN]) & (_SET_MAINT | _SET_DRAIN):
            # The address stays that of the config, which may have moved the host since.
            fields[_ADDRESS] = "-"
            kept.append(" ".join(fields))
    return "\n".join([*lines[:2], *kept, ""])


def _servers(servers_state: str, backend: str) -> Iterator[list[str]]:
    for line in servers_state.splitlines():
        fields = line.split()
        if len(fields) > _ADMIN and not line.startswith("#") and fields[1] == backend:
            yield fields


def _total(rows: list[dict[str, str]], column: str) -> int:
    return sum(int(row.get(column) or 0) for row in rows)
