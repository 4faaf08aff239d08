"""The verbs of a host, called over SSH: one command, one answer behind the caller's own nonce.

The host's side is `serving.host`; it runs nothing else for the deploy key.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from serving.artifact.verify import EXIT_CODES
from serving.fleet.errors import FleetError, FleetRefusal, StuckVersion
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.ssh.connection import Shell

_ANSWER = "lockgate-answer"
_STUCK = ("stuck-unload", "stuck-load")
_REFUSALS = (*EXIT_CODES, "older-version")


class PackageRefused(FleetRefusal):
    """A host refused the package; `reason` is its name for the fault."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class HostVerbs:
    """The verbs of one host, for a controller whose fencing number is `fence`."""

    shell: Shell
    fence: int = 0

    def call(
        self,
        verb: str,
        *arguments: object,
        rollback: bool = False,
        timeout_s: float | None = None,
        limit_kib_s: int = 0,
    ) -> dict[str, Any]:
        """Have the host do `verb`; the content of its answer.

        Raises PackageRefused where the host refuses a package, LeaseLost where it has seen a newer
        controller, StuckVersion where only a restart helps, FleetError for any other refusal or an
        answer that is none, Unreachable.
        """
        limit = timeout_s or self.shell.ssh.command_timeout_s
        nonce = secrets.token_hex(16)
        words = ["lockgate", nonce, verb, *map(str, arguments)]
        words += ["--fence", str(self.fence), "--timeout", str(max(1, round(limit)))]
        words += ["--rollback"] if rollback else []
        words += ["--limit", str(limit_kib_s)] if limit_kib_s else []
        done = self.shell.run(" ".join(words), limit)
        answer = parse_answer(done.stdout, nonce)
        host = self.shell.host.name
        if answer is None:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise FleetError(
                f"{host}: its account {self.shell.ssh.user} did not answer {verb} "
                f"({lines[-1] if lines else f'status {done.code}'}). See etc/host on the host."
            )
        if answer.get("ok") is True and isinstance(answer.get("content"), dict):
            return dict(answer["content"])
        reason, detail = str(answer.get("refused")), str(answer.get("detail"))
        if reason == "fence":
            raise LeaseLost(f"{host}: {detail}. This one stopped where it was. See fab status.")
        if reason in _REFUSALS:
            what = "/".join(map(str, arguments[:2]))
            raise PackageRefused(f"{host} refused {what}: {reason}: {detail}", reason)
        kind = StuckVersion if reason in _STUCK else FleetError
        raise kind(f"{host}: {verb}: {detail}")


def parse_answer(output: str, nonce: str) -> dict[str, Any] | None:
    """The JSON object behind the line with `nonce`, None where there is none.

    Everything before that line is a banner's or a login shell's.
    """
    _, found, document = f"\n{output}".rpartition(f"\n{_ANSWER} {nonce}\n")
    try:
        answer = json.loads(document) if found else None
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def version_list(versions: tuple[int, ...]) -> str:
    """Versions as a word of a command."""
    return ",".join(str(version) for version in versions) or "none"
