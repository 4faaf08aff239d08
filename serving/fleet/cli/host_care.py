"""`fab logs`, `verify`, `exec-check` and `gc`: a host by its own verbs, beside every rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from conf.names import check_name
from serving.fleet.cli.command import Controls, held
from serving.fleet.errors import FleetConfigError, FleetError
from serving.fleet.rollout.rollout_run import Progress
from serving.fleet.ssh.connection import open_shell
from serving.fleet.ssh.transfer import fault_sentence
from serving.fleet.ssh.verbs import HostVerbs
from serving.host.requests import ALL

MOST_LINES = 1000
_VERIFY_S = 900.0


def host_log(on: Controls, host: str, lines: int) -> list[str]:
    """The last `lines` lines of the log of the host's Triton. Raises FleetError."""
    if not 1 <= lines <= MOST_LINES:
        raise FleetConfigError(
            f"--lines={lines}: 1 to {MOST_LINES}. Type: fab logs {host} --lines 100"
        )
    with _verbs(on, "logs", host) as verbs:
        return str(verbs.call("logs", lines)["text"]).splitlines()


def verify_host(on: Controls, host: str) -> list[str]:
    """Every fault of a verification made now; none where all is as signed. Raises FleetError."""
    with _verbs(on, "verify", host) as verbs:
        record = verbs.call("verify", "all", timeout_s=_VERIFY_S)
    return [f"{host}: {fault_sentence(fault)}" for fault in record["faults"]]


@dataclass(frozen=True)
class ExecutionCheck:
    """One golden question to a version on a host: `fault` is "" where its answer was the golden
    one, `seconds` those of the answer (None where the host put no question)."""

    model: str
    version: int
    seconds: float | None = None
    fault: str = ""


def check_execution(on: Controls, host: str) -> list[ExecutionCheck]:
    """Have every version that the host has ready answer a golden question now, on the host itself.

    Past edges and agents, and whatever the traffic is. Raises FleetError where the host or its
    Triton does not answer, or Triton has no version ready.
    """
    with _verbs(on, "exec-check", host) as verbs:
        found = verbs.call("facts", ALL)
        if found["control"]:
            raise FleetError(f"{host}: {found['control']}. Type: fab restart --host {host}")
        ready = [
            (model, int(version))
            for model, facts in sorted(found["models"].items())
            for version, (state, _) in sorted(facts["states"].items(), key=lambda one: int(one[0]))
            if state == "READY"
        ]
        if not ready:
            raise FleetError(f"{host}: its Triton has no version ready. Type: fab heal")
        return [_execution(verbs, model, version) for model, version in ready]


def _execution(verbs: HostVerbs, model: str, version: int) -> ExecutionCheck:
    """A version that fails, or has no golden questions, hides no other."""
    try:
        found = verbs.call("probe", model, version)
    except FleetError as error:
        return ExecutionCheck(model, version, fault=str(error))
    fault = "" if found["ok"] is True else str(found["detail"]) or "its answer is another one"
    return ExecutionCheck(model, version, float(found["seconds"]), fault)


def collect_garbage(on: Controls, host: str, progress: Progress) -> str:
    """Remove what ended commands left on the host; a sentence for people. Raises FleetError."""
    with held(on, f"gc {host}", progress) as lease, _verbs(on, "gc", host, lease.fence) as verbs:
        content = verbs.call("gc")
    removed, regions = content["removed"], content["regions"]
    dead = f"{regions['number']} dead regions of /dev/shm ({int(regions['bytes']) >> 20} MiB)"
    return f"{host}: {len(removed)} left-overs removed; {dead}, which Triton's next start removes"


@contextmanager
def _verbs(on: Controls, command: str, host: str, fence: int = 0) -> Iterator[HostVerbs]:
    found = on.fleet.host(check_name("HOST", host, f"fab {command} {{}}"))
    shell = open_shell(found, on.fleet.ssh_of(found))
    try:
        yield HostVerbs(shell, fence)
    finally:
        shell.close()
