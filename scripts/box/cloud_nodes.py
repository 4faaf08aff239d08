"""Cloud nodes of the box: Slurm's power saving starts their slurmd for a job and stops it after.

slurmctld runs ResumeProgram and SuspendProgram as its own user, who may start nothing of root's.
So they only leave and remove a file named for the node, and a daemon of root's, this module's main,
makes the node's program in the box's supervisord what the files want:

    python -m scripts.box.cloud_nodes SOCKET FOLDER NODE...
"""

from __future__ import annotations

import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from conf.site_schema import Site
from scripts.box import supervisor
from scripts.box.identity import REPO
from scripts.box.program import File, Folder, Program

POLL_S = 0.5
WAS_OVERTAKEN = (60, 70)
"""supervisor.xmlrpc.Faults ALREADY_STARTED and NOT_RUNNING: it is as wanted by now."""


def wanted_folder(site: Site) -> Path:
    """Folder with an empty file for each node that Slurm wants up; its user writes it."""
    return site.root / "slurm" / "cloud"


def program(site: Site, verb: Literal["resume", "suspend"]) -> Path:
    """ResumeProgram or SuspendProgram of slurm.conf."""
    return site.paths.slurm_conf.parent / f"{verb}-nodes"


def script(site: Site, verb: Literal["resume", "suspend"]) -> str:
    """Text of that program: it is called with a list of nodes such as n[3-4]."""
    change = ": >" if verb == "resume" else "rm -f"
    return (
        "#!/bin/sh\n"
        "# Written by scripts/site up; edit scripts/box/cloud_nodes.py, not this file.\n"
        f"export SLURM_CONF='{site.paths.slurm_conf}'\n"
        'for node in $(scontrol show hostnames "$1"); do\n'
        f"  {change} '{wanted_folder(site)}'/\"$node\"\n"
        "done\n"
    )


def files(site: Site) -> list[File]:
    """The two programs, where the site has cloud nodes."""
    if not site.slurm.cloud_nodes:
        return []
    return [File(program(site, verb), script(site, verb), mode=0o755) for verb in VERBS]


VERBS: tuple[Literal["resume"], Literal["suspend"]] = ("resume", "suspend")


def folders(site: Site) -> list[Folder]:
    """The folder of wishes, where the site has cloud nodes."""
    user = site.users.slurm
    return [Folder(wanted_folder(site), user, user)] if site.slurm.cloud_nodes else []


def programs(site: Site, names: Sequence[str]) -> list[Program]:
    """The daemon that starts and stops the slurmd of `names`; none without cloud nodes."""
    if not names:
        return []
    path = supervisor.socket(site)
    return [
        Program(
            name="cloud-nodes",
            argv=(
                *(str(REPO / ".venv/bin/python"), "-m", "scripts.box.cloud_nodes"),
                *(str(path), str(wanted_folder(site)), *names),
            ),
            env={"PYTHONPATH": str(REPO)},
            # The nodes stop after it at `down`: it would start them again.
            needs=tuple(f"slurmd-{name}" for name in names),
            probe=lambda: "",
        )
    ]


def change(wanted: bool, state: str) -> Literal["start", "stop"] | None:
    """The call that makes a slurmd in the supervisor's `state` as wanted; None for none."""
    if wanted and state in ("STOPPED", "EXITED", "FATAL"):
        return "start"
    if not wanted and state in ("RUNNING", "STARTING", "BACKOFF"):
        return "stop"
    return None


def adjust(control: Any, states: Mapping[str, str], folder: Path, names: Sequence[str]) -> None:
    """Start and stop the slurmd of `names` as the files in `folder` want it."""
    for name in names:
        process = f"slurmd-{name}"
        todo = change((folder / name).exists(), states.get(process, "ABSENT"))
        if todo is None:
            continue
        print(f"{name}: {todo}", flush=True)
        try:
            (control.startProcess if todo == "start" else control.stopProcess)(process, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in WAS_OVERTAKEN:
                print(f"{name}: could not {todo}: {fault.faultString}", flush=True)


def main(argv: Sequence[str]) -> None:
    """Keep the nodes of `argv` as wanted, for ever."""
    path, folder, names = Path(argv[0]), Path(argv[1]), argv[2:]
    while True:
        found = supervisor.processes(path)
        states = {name: str(info["statename"]) for name, info in found.items()}
        try:
            adjust(supervisor.connect(path), states, folder, names)
        except OSError as error:  # the supervisor restarts; it starts this daemon again too
            print(f"supervisord: {error}", flush=True)
        time.sleep(POLL_S)


if __name__ == "__main__":
    main(sys.argv[1:])
