"""`python restart_program.py SOCKET PROGRAM`: supervisord's restart of one of its programs.

Installed on each host of the box. `supervisorctl restart` would do, but for a fault of supervisor
4: while a call of its waits for a program, supervisord polls without a pause and takes a whole
core, of a host whose neighbours share it. The calls here return at once, and it is this that waits.
"""

from __future__ import annotations

import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

POLL_SECONDS = 0.05
_STOPPED = ("STOPPED", "EXITED", "FATAL", "UNKNOWN")
# https://github.com/Supervisor/supervisor/blob/4.3.0/supervisor/xmlrpc.py, Faults
_ALREADY_STARTED, _NOT_RUNNING = 60, 70


def restart(supervisor: Any, program: str, wait: Callable[[float], None] = time.sleep) -> str:
    """Stop and start `program`; returns the state that ended the start, RUNNING where it runs.

    One that dies at its start (BACKOFF) is started again by supervisord; nobody waits for that.
    Raises xmlrpc.client.Error and OSError. A stop takes `stopwaitsecs` at most.
    """

    def state() -> str:
        return str(supervisor.getProcessInfo(program)["statename"])

    with _borne(_NOT_RUNNING):
        supervisor.stopProcess(program, False)
    while state() not in _STOPPED:
        wait(POLL_SECONDS)
    with _borne(_ALREADY_STARTED):  # it had died, and supervisord itself was faster
        supervisor.startProcess(program, False)
    while (now := state()) == "STARTING":
        wait(POLL_SECONDS)
    return now


@contextmanager
def _borne(code: int) -> Iterator[None]:
    try:
        yield
    except xmlrpc.client.Fault as fault:
        if fault.faultCode != code:
            raise


def main(argv: list[str]) -> int:
    """The exit code: 0 where the program runs."""
    path, program = argv
    transport = SupervisorTransport(None, None, f"unix://{path}")
    try:
        ended = restart(
            xmlrpc.client.ServerProxy("http://127.0.0.1", transport).supervisor, program
        )
    except (OSError, xmlrpc.client.Error) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    if ended != "RUNNING":
        print(f"{program}: {ended} after its start; its log has the reason", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
