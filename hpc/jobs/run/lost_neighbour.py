"""Errors of a rank that only report that another rank is gone: a consequence, never a cause."""

from __future__ import annotations

import re

# Of gloo, NCCL and the store through which ranks meet: another rank is gone, or does not answer.
LOST_NEIGHBOUR = re.compile(
    r"Dist(?:Network|Store)Error"
    r"|DistBackendError(?!.{0,2000}?(?:invalid usage|unhandled cuda error|invalid argument))"
    r"|gloo.{0,400}?(?:peer|Read error|Broken pipe|Connection re|[Tt]imed out|[Tt]imeout)"
    r"|(?:peer|Connection (?:closed|reset)).{0,400}?gloo"
    r"|Connection (?:closed|reset) by peer \["
    r"|Application timeout caused pair closure"
    r"|Timed out waiting \d+ms for (?:recv|send) operation"
    r"|ncclRemoteError|remote process exited|socketProgress|Connection closed by remote peer"
    r"|Watchdog caught collective operation timeout|NCCL communicator was aborted"
    r"|TCPStore|Did the remote server shutdown or crash|monitoredBarrier",
    re.DOTALL,
)


def is_lost_neighbour(error: str) -> bool:
    """True for a rank's error, `Type: message`, that only reports that another rank is gone."""
    return LOST_NEIGHBOUR.search(error) is not None
