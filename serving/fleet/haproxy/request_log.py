"""One line of the edge's log for each request: a JSON object that the exporter reads."""

from __future__ import annotations

_FIELDS = (
    '"ts_ms":%Ts%ms,"request_id":"%ID","trace_id":"%[var(txn.tid)]","span_id":"%[var(txn.sid)]",'
    '"parent_id":"%[var(txn.parent)]","model":"%[var(txn.model),json(utf8s)]",'
    '"version":"%[var(txn.version),json(utf8s)]",'
    '"path":"%[{path},json(utf8s)]","method":"%[capture.req.method,json(utf8s)]",'
    '"status":{status},"term":"%tsc","fe":"%ft","be":"%b","srv":"%s","tq_ms":%TR,"tw_ms":%Tw,'
    '"tc_ms":%Tc,"tr_ms":%Tr,"ta_ms":%Ta,"retries":"%rc","srv_queue":%sq,"be_queue":%bq,"bytes":%B'
)


def log_format(region: str, path: str = "capture.req.uri", status: str = "%ST") -> str:
    """The `log-format` of a frontend: `path` is a sample, `status` part of a format.

    The region is in every line: all edges of a site may log to one reader.
    """
    fields = _FIELDS.replace("{path}", path).replace("{status}", status)
    return f'log-format \'{{"region":"{region}",{fields}}}\''
