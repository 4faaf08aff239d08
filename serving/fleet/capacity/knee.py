"""The load that one host bears with one version, as far as the version's release measured it.

The latency gate keeps a number of clients busy at one server and records their p50. With so many
requests in flight and so long for each, clients / p50 a second were answered (Little's law): the
knee is there or above. It is of the gate's machine, with one server alone on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.artifact.manifest import Manifest

_P50 = re.compile(r".+\.p50\.c([1-9][0-9]*)")


@dataclass(frozen=True)
class Knee:
    """Requests a second that one host bears at least, and the measurement behind it."""

    requests_per_s: float
    basis: str


def knee_of(manifest: Manifest) -> Knee | None:
    """The highest load that a gate of this version measured, None where none did."""
    found = []
    for gate in manifest.gates:
        match = _P50.fullmatch(gate.name)
        if match and gate.verdict == "pass" and gate.value:
            rate = int(match[1]) / (gate.value / 1e3)
            basis = f"{match[1]} clients at p50 {gate.value:.3g} ms in the gate {gate.name}"
            found.append(Knee(rate, basis))
    return max(found, key=lambda knee: knee.requests_per_s, default=None)
