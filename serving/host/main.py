"""The programs of a host: verbs of a controller, watches, the start of Triton, blobs to a peer.

An answer is one line with the controller's own nonce and then one JSON document: whatever a login
shell or a banner printed before it is nobody's answer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from serving.host.blobs import answer_blobs
from serving.host.commands import carry_out
from serving.host.errors import HostRefusal
from serving.host.home import read_home
from serving.host.requests import nonce_of, parse_request
from serving.host.start import prepare_start, start_triton
from serving.host.watch import watch

ANSWER = "lockgate-answer"
_NICE = 10
"""Of a command, beside Triton's 0: what it copies and verifies yields to clients' requests, a tenth
of a busy processor is left to it."""


def main(argv: Sequence[str]) -> int:
    """Run `ROOT command`, `watch`, `agent`, `start`, `prepare` or `blobs KEY`; returns the exit
    code."""
    if len(argv) == 3 and argv[1] == "blobs":
        answer_blobs(read_home(Path(argv[0])), argv[2], sys.stdin.buffer, sys.stdout.buffer)
        return 0
    if len(argv) != 2 or argv[1] not in ("command", "watch", "agent", "start", "prepare"):
        usage = "python -I -B ROOT/etc/host ROOT command|watch|agent|start|prepare"
        print(f"usage: {usage}", file=sys.stderr)
        return 2
    home = read_home(Path(argv[0]))
    if argv[1] == "watch":
        watch(home)
        return 0
    if argv[1] == "agent":
        from serving.host.golden_watch import watch_answers  # numpy: not for a command

        watch_answers(home)
        return 0
    if argv[1] == "start":
        return start_triton(home)
    if argv[1] == "prepare":
        return prepare_start(home)
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    nonce = nonce_of(command)
    if not nonce:
        print("lockgate: this account answers fab and nothing else", file=sys.stderr)
        return 2
    # A command runs to its end, also when its connection does not: half a load is nobody's state.
    # sshd ends it neither by a signal nor by the closed pipe, and no other sshd shall.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.nice(_NICE)
    answer = f"{ANSWER} {nonce}\n{json.dumps(_answer(home.root, command))}"
    with suppress(BrokenPipeError):  # nobody is there to read it; the facts have what was done
        print(answer, flush=True)
    return 0


def _answer(root: Path, command: str) -> dict[str, Any]:
    home = read_home(root)
    try:
        request = parse_request(command)
        signal.signal(signal.SIGALRM, _out_of_time)
        signal.alarm(request.timeout_s)
        return {"ok": True, "content": carry_out(home, request)}
    except HostRefusal as refusal:
        return {"ok": False, "refused": refusal.reason, "detail": str(refusal)}
    except subprocess.TimeoutExpired as error:
        return {"ok": False, "refused": "timeout", "detail": f"ended after {error.timeout:g} s"}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return {"ok": False, "refused": "failed", "detail": f"{where}{error.strerror or error}"}
    finally:
        signal.alarm(0)


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise HostRefusal("timeout", "the command took longer than it may and was ended")
