"""The golden gate: every golden example comes back from the served package within its tolerance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serving.artifact.golden import differences
from serving.artifact.manifest import GateRecord
from serving.release.gate import at_least, at_most
from serving.release.subject import GateSubject


@dataclass(frozen=True)
class GoldenGate:
    """Enough golden examples, and each answered with the outputs that the candidate carries."""

    required: bool
    min_examples: int
    """Fewer prove too little."""

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        return f"{name}.count", f"{name}.equal"

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        examples = subject.golden_examples()
        yield at_least(f"{name}.count", len(examples), self.min_examples, "examples")
        endpoint = subject.served().candidate
        wrong: list[str] = []
        unequal = 0
        for number, example in enumerate(examples):
            found = differences(example, endpoint.infer(example.inputs))
            unequal += bool(found)
            wrong += [f"example {number}: {sentence}" for sentence in found]
        detail = "; ".join(wrong[:3]) or f"{len(examples)} equal"
        yield at_most(f"{name}.equal", unequal, 0, detail)
