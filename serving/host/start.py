"""The start of a host's Triton: the server, once what it will load has been verified.

Where Triton is a container, the verification is a step before it, with the rights of Triton alone.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

from serving.host.home import HostHome
from serving.host.leftovers import SHM, region_prefix, remove_dead_regions

_WATCH_S = 60.0
_VERIFY_S = 1800.0
_MAX_ANSWER = 1 << 20


def start_triton(home: HostHome) -> int:
    """Wait for a verification and become tritonserver; returns 1 where there is none."""
    code = prepare_start(home)
    if code:
        return code
    os.execv(home.triton[0], home.triton)


def prepare_start(home: HostHome) -> int:
    """Wait for a verification, and clear away what a killed Triton left; returns 1 without one."""
    try:
        record = _verification(home)
    except (OSError, ValueError) as error:
        print(
            f"Triton was not started: {home.verify_socket} gave no verification ({error}). "
            "See the log of the host's watch.",
            file=sys.stderr,
        )
        return 1
    for fault in record["faults"]:
        print(f"taken out or named before the start: {json.dumps(fault)}", file=sys.stderr)
    removed = remove_dead_regions(region_prefix(home))
    if removed:
        print(f"removed {len(removed)} regions that a killed Triton left in {SHM}", file=sys.stderr)
    sys.stderr.flush()
    return 0


def _verification(home: HostHome) -> dict:
    """The record of a verification made now. Raises OSError, ValueError."""
    deadline = time.monotonic() + _WATCH_S
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(home.verify_socket))
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
                continue
            connection.settimeout(_VERIFY_S)
            with connection.makefile("rb") as answer:
                line = answer.readline(_MAX_ANSWER)
        record = json.loads(line)
        if not isinstance(record, dict) or not isinstance(record.get("faults"), list):
            raise ValueError(f"its answer is no record: {line[:80]!r}")
        return record
