"""A request of a controller, as one JSON object in a line; nothing else is ever carried out.

    {"do": "query", "command": "show stat"}            HAProxy's answer to one of `_COMMANDS`
    {"do": "read", "name": "routes.map"}               a file of the state folder, "" without one
    {"do": "write", "name": "routes.map", "text": ..}  put it there, on the disk
    {"do": "config"}                                   the text of HAProxy's config
    {"do": "install", "text": ...}                     check a config, put it there, reload

Every word is checked by rule: no path, and no command but those below.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.edge_host.names import (
    BACKEND,
    COUNTERS,
    LAST,
    MODEL,
    ROUTE,
    ROUTES,
    ROUTES_TEXT,
    SHADOW_COUNTERS,
    STATES,
    STATES_TEXT,
)

MAX_TEXT = 1 << 20
NONCE = re.compile(r"[0-9a-f]{16,64}")
_SERVER = rf"({BACKEND}|{LAST})/{MODEL}"
_TEXTS = {ROUTES: ROUTES_TEXT, STATES: STATES_TEXT}


class EdgeHostRefusal(Exception):
    """This machine does not do that; the text is one sentence."""


@dataclass(frozen=True)
class EdgeRequest:
    """A checked request."""

    do: str
    command: str = ""
    name: str = ""
    text: str = ""


def parse_edge_request(line: str, state: Path) -> EdgeRequest:
    """The request in a line, for the state folder `state`. Raises EdgeHostRefusal."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise EdgeHostRefusal("the request is no JSON") from None
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise EdgeHostRefusal("a request is an object of texts")
    do = content.pop("do", "")
    wanted = {
        "query": ("command",), "read": ("name",), "write": ("name", "text"), "config": (),
        "install": ("text",),
    }  # fmt: skip
    if do not in wanted or tuple(sorted(content)) != wanted[do]:
        raise EdgeHostRefusal(f"this edge does {', '.join(wanted)}, and nothing else")
    request = EdgeRequest(do, **content)
    _check(request, state)
    return request


def _check(request: EdgeRequest, state: Path) -> None:
    if request.do == "query":
        for command in request.command.split("; "):
            if not any(form.fullmatch(command) for form in _forms(state)):
                raise EdgeHostRefusal(f"{command[:80]!a} is no command of a rollout")
    if request.do in ("read", "write") and request.name not in _TEXTS:
        raise EdgeHostRefusal(f"the state folder has {', '.join(_TEXTS)} only")
    if len(request.text) > MAX_TEXT:
        raise EdgeHostRefusal(f"a file may have {MAX_TEXT} characters")
    if request.do == "write" and not _TEXTS[request.name].fullmatch(request.text):
        raise EdgeHostRefusal(f"the text is none of {request.name}")


def _forms(state: Path) -> list[re.Pattern[str]]:
    path = re.escape(str(state / ROUTES))
    return [
        re.compile(form)
        for form in (
            "show (servers state|stat|info)",
            f"show table ({COUNTERS}|{SHADOW_COUNTERS})",
            f"show map {path}",
            f"(set|add) map {path} {MODEL} {ROUTE}",
            f"del map {path} {MODEL}",
            f"set server {_SERVER} state (ready|drain|maint)",
            f"set server {_SERVER} agent up",
            f"(enable|disable) agent {_SERVER}",
        )
    ]


def answer_line(nonce: str, answer: dict[str, Any]) -> str:
    """An answer as the controller finds it behind whatever a login shell printed before."""
    return f"lockgate-answer {nonce} {json.dumps(answer)}\n"
