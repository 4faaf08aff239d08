"""A gate of one's own: a frozen dataclass whose fields are the keys of conf/gates."""

from collections.abc import Iterator
from dataclasses import dataclass

from serving.artifact.manifest import GateRecord
from serving.release.gate import at_least
from serving.release.subject import GateSubject

MALIGNANT = 0


@dataclass(frozen=True)
class RecallGate:
    """The share of malignant tumours that the served model finds."""

    required: bool
    minimum: float

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        return (name,)

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        malignant = subject.examples("holdout").target == MALIGNANT
        found = subject.predictions("holdout").argmax(axis=1) == MALIGNANT
        recall = float(found[malignant].mean())
        yield at_least(name, recall, self.minimum, f"of {malignant.sum()} malignant tumours")
