"""The host's Triton as it runs: the states of its versions, and its memory.

Read from its control socket and from /proc, in a bounded time: every status of the fleet wants it,
also while Triton is down.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serving.host import repository
from serving.host.home import HostHome
from serving.triton.process_memory import command_words, tree_bytes, tree_pids
from serving.triton.server import TritonError

if TYPE_CHECKING:
    from serving.triton.grpc_client import TritonClient

_ANSWER_S = 3.0
_REASON_CHARS = 300
_UNIX = "unix:"

States = dict[int, tuple[str, str]]
"""State (READY, LOADING, UNLOADING, UNAVAILABLE) and reason, by version."""


@dataclass(frozen=True)
class RunningTriton:
    """Triton as it is now: states by model, resident bytes of the server and its stubs.

    `instances` is the number of instances of each model that has a version ready.
    `fault` is the sentence of a control socket that does not answer; the states are then empty.
    `memory_bytes` is None where no process listens there.
    """

    states: dict[str, States] = field(default_factory=dict)
    memory_bytes: int | None = None
    fault: str = ""
    instances: dict[str, int] = field(default_factory=dict)


def read_running(home: HostHome) -> RunningTriton:
    """Triton's states and memory; never raises for a Triton that is down or hangs."""
    try:
        pid = server_pid(home)
    except OSError as error:
        return RunningTriton(fault=f"its control socket takes no connection: {error}")
    if pid is None:
        return RunningTriton(fault="no Triton listens at its control socket")
    memory = tree_bytes(pid)
    from serving.triton.grpc_client import TritonClient

    try:
        with TritonClient(home.grpc_target, timeout_s=_ANSWER_S) as client:
            states = client.states()
            return RunningTriton(_shortened(states), memory, instances=_instances(client, states))
    except TritonError as error:
        return RunningTriton(memory_bytes=memory, fault=str(error))


def resident_bytes(home: HostHome) -> int | None:
    """The memory of Triton and its stubs, None where no process listens at its control socket.

    Without a question to Triton, whose client takes longer to import than this takes. Raises
    OSError.
    """
    pid = server_pid(home)
    return None if pid is None else tree_bytes(pid)


def server_pid(home: HostHome) -> int | None:
    """The process that listens at Triton's control socket, None where there is none.

    Raises OSError for one that takes no connection now.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(home.grpc_target.removeprefix(_UNIX))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        size = struct.calcsize("3i")
        listener = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid, _, _ = struct.unpack("3i", listener)
    return int(pid) or None


def lost_process(home: HostHome, model: str) -> Callable[[int], bool]:
    """A check of a version of `model`: true when Triton runs no process for it any more.

    Of the Python backend only, which names the model's file to each process; false for any other.
    """
    text = repository.persisted_text(home, model) or ""
    pid = server_pid(home)
    if pid is None or 'backend: "python"' not in text:
        return lambda version: False

    def lost(version: int) -> bool:
        file = str(home.installed(model, version) / "model.py")
        return not any(file in command_words(one) for one in tree_pids(pid))

    return lost


def _instances(client: TritonClient, states: dict[str, States]) -> dict[str, int]:
    """By the served config of the highest version that is ready."""
    found: dict[str, int] = {}
    for model, versions in states.items():
        ready = [version for version, (state, _) in versions.items() if state == "READY"]
        with suppress(TritonError):  # it may be unloaded just now
            groups = client.config(model, max(ready))["instance_group"] if ready else []
            found |= {model: max(int(group["count"]) for group in groups)} if groups else {}
    return found


def _shortened(states: dict[str, States]) -> dict[str, States]:
    """With reasons that fit an answer: some carry a whole Python traceback."""
    return {
        model: {
            version: (state, " ".join(reason.split())[:_REASON_CHARS])
            for version, (state, reason) in found.items()
        }
        for model, found in states.items()
    }
