"""The verifier's request for a restart of Triton: one connection to systemd's socket on the host.

    python3 -I restart_request.py /run/lockgate/restart.sock

Installed on a host, with the standard library only. systemd starts root's one command for each
connection, so the verifier needs no right but to connect; the answer ends with `restarted` once
the old server has ended and the new start has begun.
"""

from __future__ import annotations

import socket
import sys

DONE = "restarted"


def main(path: str) -> int:
    """Ask, wait, and return the exit code."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("r", errors="replace") as reader:
                answer = reader.read(4096).strip()
    except OSError as error:
        answer = f"{path}: {error.strerror or error}"
    if answer.endswith(DONE):
        return 0
    print(answer or f"{path} gave no answer", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
