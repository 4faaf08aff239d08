"""The subject of a release's gates: a staged candidate, beside the version in production.

Gates reach what the candidate brings (its model.py and runtime) only through `served`, a
throw-away tritonserver's gRPC: nothing of a candidate is imported, unpickled or run in here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from serving.artifact import golden
from serving.artifact.golden import GoldenExample
from serving.artifact.splits import LabelledExamples, read_examples
from serving.artifact.store import Package
from serving.release.candidate import StagedCandidate
from serving.release.predictions import served_predictions
from serving.release.problem import LearningProblem, read_problem
from serving.triton.grpc_client import ModelClient

T = TypeVar("T")


@dataclass(frozen=True)
class ServedPackages:
    """The throw-away servers: the candidate's, and production's when there is one."""

    candidate: ModelClient
    production: ModelClient | None


@dataclass(frozen=True)
class GateSubject:
    """Everything that gates may read; costly parts are made when first needed, once."""

    staged: StagedCandidate
    production: Package | None
    allow_breaking: bool
    """True when a change of interface that breaks today's clients is wanted."""
    serving_env: Path
    """The virtual environment that serves, whose versions `requires` is held against."""
    in_flight: int
    """Requests at a time while a split is predicted."""
    start_servers: Callable[[], ServedPackages]
    find_dataset: Callable[[], Path]
    _made: dict[Hashable, tuple[Any, Exception | None]] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, called once per `key`; its exception is raised every time."""
        if key not in self._made:
            try:
                self._made[key] = (make(), None)
            except Exception as error:  # noqa: BLE001 - kept, and raised to every gate
                self._made[key] = (None, error)
        result, failure = self._made[key]
        if failure is not None:
            raise failure
        return result  # type: ignore[no-any-return]

    def served(self) -> ServedPackages:
        """The servers, started at the first call."""
        return self.once("served", self.start_servers)

    def dataset(self) -> Path:
        """The folder of the candidate's dataset, every file hashed at the first call."""
        return self.once("dataset", self.find_dataset)

    def golden_examples(self) -> tuple[GoldenExample, ...]:
        """The golden examples that the candidate carries. Raises GoldenError."""
        return self.once("golden", lambda: golden.read_examples(self.staged.folder))

    def problem(self) -> LearningProblem:
        """The learning problem of the dataset. Raises ValueError, DatasetError."""
        return self.once("problem", lambda: read_problem(self.dataset()))

    def examples(self, split: str) -> LabelledExamples:
        """The rows of one split, their target as float64 quantities or int64 class ids [rows]."""

        def make() -> LabelledExamples:
            found = read_examples(self.dataset(), split)
            target = self.problem().measured(found.target)
            return LabelledExamples(found.inputs, target, found.group)

        return self.once(("examples", split), make)

    def predictions(
        self, split: str, output: str | None = None, of_production: bool = False
    ) -> np.ndarray:
        """The predictions of the served candidate (or production) for a split, float64 [rows, ...].

        `output` names the served tensor; None is the one that the dataset names, or the only one
        there is. Raises ValueError, InferError.
        """

        def make() -> np.ndarray:
            served, package = self.served(), self.production
            endpoint = served.production if of_production else served.candidate
            if endpoint is None or (of_production and package is None):
                raise ValueError("no version is in production")
            declared = package.manifest if of_production and package else self.staged.candidate
            return served_predictions(
                endpoint,
                declared.inputs,
                self.examples(split).inputs,
                output or self._output(),
                self.in_flight,
            )

        return self.once(("predictions", split, output, of_production), make)

    def _output(self) -> str:
        named = self.problem().output
        if named is not None:
            return named
        names = [tensor.name for tensor in self.staged.candidate.outputs]
        if len(names) != 1:
            raise ValueError(
                f"the package has the outputs {', '.join(names)}: name the one that is the "
                "prediction, as in output: NAME"
            )
        return names[0]
