"""Lines of an edge's request log, in the form that its HAProxy is configured to write."""

from __future__ import annotations

import json
import re

from serving.fleet.haproxy.request_log import log_format

_FIELD = re.compile(r"%\[[^\]]*\]|%[A-Za-z]+")


def log_line(
    region: str, at_s: float, model: str, status: int = 200, path: str = "", host: str = "use1-a"
) -> bytes:
    """One line as `log-format` has it, with every field of HAProxy's replaced by a value."""
    values = {
        "%Ts": f"{int(at_s)}", "%ms": f"{int(at_s * 1000) % 1000:03d}", "%ST": f"{status}",
        "%ID": "0" * 32, "%tsc": "----", "%ft": "infer", "%b": "triton", "%s": host,
        "%TR": "0", "%Tw": "0", "%Tc": "0", "%Tr": "3", "%Ta": "4", "%rc": "0", "%sq": "0",
        "%bq": "0", "%B": "212", "%[var(txn.model),json(utf8s)]": _text(model),
        **{f"%[var(txn.{name})]": "" for name in ("tid", "sid", "parent")},
        "%[var(txn.version),json(utf8s)]": "3", "%[capture.req.method,json(utf8s)]": "POST",
        "%[capture.req.uri,json(utf8s)]": _text(path or f"/v2/models/{model}/infer"),
    }  # fmt: skip
    text = log_format(region, region).removeprefix("log-format '").removesuffix("'")
    return _FIELD.sub(lambda field: values[field[0]], text).encode() + b"\n"


def _text(value: str) -> str:
    return json.dumps(value)[1:-1]
