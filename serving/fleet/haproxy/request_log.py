"""The edge's log: a line for each request, a JSON object, and its way to the exporter."""

from __future__ import annotations

from pathlib import Path

LOG_RING = "edge-log"
LOG_RELAY = "log-relay"
LOG_LINE_BYTES = 8192

_FIELDS = (
    '"ts_ms":%Ts%ms,"request_id":"%ID","trace_id":"%[var(txn.tid)]","span_id":"%[var(txn.sid)]",'
    '"parent_id":"%[var(txn.parent)]","model":"%[var(txn.model),json(utf8s)]",'
    '"version":"%[var(txn.version),json(utf8s)]",'
    '"path":"%[{path},json(utf8s)]","method":"%[capture.req.method,json(utf8s)]",'
    '"status":{status},"term":"%tsc","fe":"%ft","be":"%b","srv":"%s","tq_ms":%TR,"tw_ms":%Tw,'
    '"tc_ms":%Tc,"tr_ms":%Tr,"ta_ms":%Ta,"retries":"%rc","srv_queue":%sq,"be_queue":%bq,"bytes":%B'
)


def log_format(region: str, edge: str, path: str = "capture.req.uri", status: str = "%ST") -> str:
    """The `log-format` of a frontend: `path` is a sample, `status` part of a format.

    The region and the edge are in every line: all edges of a site may log to one reader.
    """
    fields = _FIELDS.replace("{path}", path).replace("{status}", status)
    return f'log-format \'{{"region":"{region}","edge":"{edge}",{fields}}}\''


def log_relay(reader: Path, relay: Path) -> list[str]:
    """The ring of the lines, and the proxy at the socket `relay` that passes them to `reader`."""
    # A ring in memory: the edge never waits for the reader of its log. A unix socket: only its
    # peer can write to the reader, where anybody on the machine can send a datagram to a port.
    return [
        f"ring {LOG_RING}",
        "  format raw",
        f"  maxlen {LOG_LINE_BYTES}",
        "  size 4194304",
        "  timeout connect 5s",
        "  timeout server 60s",
        f"  server relay unix@{relay}",
        # HAProxy 2.6 connects a ring again at once, and for ever, to a reader that is not there:
        # a whole core (measured). So the ring has a reader that is always there, which looks once
        # a second for the real one; the lines of that second are lost, as they would be by UDP.
        f"listen {LOG_RELAY}",
        f"  bind unix@{relay} mode 600",
        "  mode tcp",
        "  no log",
        "  timeout connect 5s",
        "  timeout client 1d",
        "  timeout server 1d",
        "  tcp-request inspect-delay 1s",
        f"  tcp-request content accept if {{ nbsrv({LOG_RELAY}) gt 0 }}",
        "  tcp-request content reject if WAIT_END",
        f"  server exporter unix@{reader} check inter 1s fall 1 rise 1",
    ]
