"""candidate.json: the description of a package that has no version number yet.

Training writes it and the release reads it, both through `Candidate`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.errors import MISTAKE, REFUSED, LockgateError
from conf.schema import SchemaError, build
from serving.artifact.digest import canonical_json
from serving.artifact.lineage import Lineage
from serving.artifact.store import REPORTS
from serving.artifact.tensors import TensorSpec
from serving.artifact.verify import safe_path

FILE = "candidate.json"


class CandidateError(LockgateError, ValueError):
    """A candidate is not one that could be released; the message has the file and the fault."""

    exit_code = REFUSED


class NoCandidate(CandidateError):
    """There is no such run, or it has no candidate; the message has the nearest runs."""

    exit_code = MISTAKE


@dataclass(frozen=True)
class Candidate:
    """The content of candidate.json.

    `transform_digest` is the sha256 of version/transform.json, `requires` maps a program or library
    to the versions it must have, `code` names the files of version/ that are the task's own code.
    Raises SchemaError for a name that could not be a folder or a file of a package.
    """

    model: str
    task: str
    lineage: Lineage
    transform_digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metrics: dict[str, float]
    requires: dict[str, str]
    code: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("model", self.model), ("run", self.lineage.run), ("task", self.task)):
            if not safe_path(value) or "/" in value or value == REPORTS:
                raise SchemaError(f"{name} is {value!r}, which cannot name a folder")
        for value in self.code:
            if not safe_path(value):
                raise SchemaError(f"code lists {value!r}, which cannot name a file of a package")

    def to_bytes(self) -> bytes:
        """The canonical JSON of candidate.json."""
        return canonical_json(asdict(self))


def read_candidate(folder: Path) -> Candidate:
    """The candidate.json in `folder`, which is `runs/<run>/candidate`.

    Raises NoCandidate where there is none, CandidateError for one that cannot be read.
    """
    path = Path(folder) / FILE
    try:
        candidate: Candidate = build(Candidate, json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        raise NoCandidate(_missing(Path(folder))) from None
    except PermissionError:
        raise CandidateError(f"{path} is not readable by this user") from None
    except (ValueError, RecursionError) as error:
        raise CandidateError(f"{path}: {error}") from None
    return candidate


def _missing(folder: Path) -> str:
    """A sentence for a candidate that is not there, with the runs that have one."""
    run = folder.parent
    if run.is_dir():
        return f"run {run.name} has no candidate: it did not finish. See lockgate logs {run.name}"
    if not run.parent.is_dir():
        return f"there is no runs folder at {run.parent}"
    known = sorted(path.parent.name for path in run.parent.glob("*/candidate"))
    have = f"runs with a candidate: {', '.join(known[-4:])}" if known else "no run has a candidate"
    return f"there is no run {run.name!r}; {have}"
