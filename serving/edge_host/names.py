"""Names and forms that both ends of an edge agree on: its backends, its files, its map."""

from __future__ import annotations

import re

BACKEND, LAST = "triton", "triton_last"
"""The servers of both carry the names of the hosts; see `serving.fleet.haproxy.edge_config`."""
COUNTERS = "requests_by_version"
"""Table of requests, the failed ones of them and the clients' mistakes, by `MODEL/VERSION`."""
SHADOW_COUNTERS = "requests_by_shadow"
"""As `COUNTERS`, of the copies that went to a shadow."""
ROUTES, STATES = "routes.map", "servers.state"
"""Files of the state folder: the map of versions, and the hosts that were taken out."""
MODEL = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
ROUTE = r"[0-9]{1,9}:[0-9]{1,9}:[0-9]{1,5}(?::[0-9]{1,9}:[0-9]{1,5})?"
"""The value of a model in the map: STABLE:CANARY:SHARE, and :SHADOW:SHARE where there is one."""
ROUTES_TEXT = re.compile(rf"({MODEL} {ROUTE}\n)*")
STATES_TEXT = re.compile(r"([A-Za-z0-9 #_.:/-]{0,1024}\n)*")
