"""Which checks a candidate must stand, in the order in which they are run: cheap ones first.

Every check names its gates before anything runs, so a server that does not come up or a dataset
that is gone leaves `unknown` for each gate that needed it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from serving.artifact import golden
from serving.artifact.manifest import GateRecord
from serving.artifact.store import Package
from serving.release import flights, hygiene, latency, lm
from serving.release.candidate import Staged
from serving.release.gate import Check, at_least, at_most, holds
from serving.release.settings import FlightsGates, Gates, LmGates
from serving.triton.grpc_client import ModelClient

T = TypeVar("T")

_VERSIONS = """
import importlib.metadata, platform
print(platform.python_version(), *(importlib.metadata.version(n) for n in ("numpy", "onnxruntime")))
"""


@dataclass(frozen=True)
class Served:
    """The throw-away servers: the candidate's, and production's when there is one."""

    candidate: ModelClient
    production: ModelClient | None


@dataclass(frozen=True)
class Subject:
    """What the checks look at. `served` and `dataset` do their work when they are first called."""

    staged: Staged
    production: Package | None
    allow_breaking: bool
    serving_env: Path
    served: Callable[[], Served]
    dataset: Callable[[], Path]


def remembered(make: Callable[[], T]) -> Callable[[], T]:
    """Call `make` once; its result, or its exception, is what every later call gets as well."""
    outcome: list[tuple[T | None, Exception | None]] = []

    def call() -> T:
        if not outcome:
            try:
                outcome.append((make(), None))
            except Exception as error:  # noqa: BLE001 - kept, and raised to everyone who asks
                outcome.append((None, error))
        result, failure = outcome[0]
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]

    return call


def all_checks(gates: Gates, subject: Subject) -> list[Check]:
    """Every check of `gates.task`, in order."""
    with_production = subject.production is not None
    checks = [
        Check(hygiene.NAMES, partial(hygiene.judge, gates.hygiene, subject.staged),
              gates.hygiene.required),
        Check(("hygiene.dataset",), partial(_dataset, subject), gates.hygiene.required),
        Check(("hygiene.requires",), partial(_requires, subject), gates.hygiene.required),
        Check(("interface.served",), partial(_interface, subject), gates.interface.required),
    ]  # fmt: skip
    if with_production:
        run = partial(_compatible, subject)
        checks.append(Check(("interface.compatible",), run, gates.interface.required))
    run = partial(_golden, subject, gates.golden.min_examples)
    checks.append(Check(("golden.count", "golden.equal"), run, gates.golden.required))
    if isinstance(gates, FlightsGates):
        checks += _flights(gates, subject)
    else:
        checks += _lm(gates, subject)
    names = latency.names(gates.latency, with_production)
    checks.append(Check(names, partial(_latency, gates, subject), gates.latency.required))
    return checks


def _dataset(subject: Subject) -> Iterator[GateRecord]:
    folder = subject.dataset()
    yield holds("hygiene.dataset", True, f"{folder.parent.name}@{folder.name}, every file hashed")


def _requires(subject: Subject) -> Iterator[GateRecord]:
    done = subprocess.run(
        [str(subject.serving_env / "bin/python"), "-c", _VERSIONS],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    have = dict(zip(("python", "numpy", "onnxruntime"), done.stdout.split(), strict=True))
    have["triton"] = subject.served().candidate.server_version()
    return hygiene.requirements(subject.staged.candidate.requires, have)


def _interface(subject: Subject) -> Iterator[GateRecord]:
    served = subject.served().candidate
    wrong = hygiene.interface_served(subject.staged, served.metadata())
    yield holds("interface.served", not wrong, "; ".join(wrong) or "as candidate.json declares it")


def _compatible(subject: Subject) -> Iterator[GateRecord]:
    assert subject.production is not None
    manifest = subject.production.manifest
    breaks = hygiene.interface_breaks(manifest, subject.staged)
    detail = "; ".join(breaks) or f"every request of {manifest.model}/{manifest.version} works"
    if breaks and subject.allow_breaking:
        detail = f"allowed by allow_breaking=true: {detail}"
    yield holds("interface.compatible", not breaks or subject.allow_breaking, detail)


def _golden(subject: Subject, wanted: int) -> Iterator[GateRecord]:
    examples = golden.read_examples(subject.staged.folder)
    yield at_least("golden.count", len(examples), wanted, "examples")
    endpoint = subject.served().candidate
    wrong: list[str] = []
    unequal = 0
    for number, example in enumerate(examples):
        found = golden.differences(example, endpoint.infer(example.inputs))
        unequal += bool(found)
        wrong += [f"example {number}: {sentence}" for sentence in found]
    yield at_most("golden.equal", unequal, 0, "; ".join(wrong[:3]) or f"{len(examples)} equal")


def _latency(gates: Gates, subject: Subject) -> Iterator[GateRecord]:
    payloads = [dict(example.inputs) for example in golden.read_examples(subject.staged.folder)]
    served = subject.served()
    return latency.judge(gates.latency, payloads, served.candidate, served.production)


def _flights(gates: FlightsGates, subject: Subject) -> list[Check]:
    split = remembered(lambda: flights.load_split(subject.dataset(), gates.holdout.split))
    train = remembered(lambda: flights.load_split(subject.dataset(), "train"))

    def through(endpoint: ModelClient, inputs: tuple) -> flights.Quality:
        scores = flights.served(endpoint, inputs, split(), gates.holdout.in_flight)
        return flights.quality(split(), scores)

    model = remembered(lambda: through(subject.served().candidate, subject.staged.candidate.inputs))

    def base_rate() -> Iterator[GateRecord]:
        rate = float(train().late.mean())
        return flights.against_base_rate(gates.base_rate, gates.holdout, split(), model(), rate)

    def against_lr() -> Iterator[GateRecord]:
        scores = flights.logistic_regression(subject.dataset(), train(), split())
        other, gate = flights.quality(split(), scores), gates.logistic_regression
        return flights.not_worse(
            "logistic_regression", gate, gates.holdout, split(), model(), other
        )

    def against_production() -> Iterator[GateRecord]:
        endpoint, package = subject.served().production, subject.production
        assert endpoint is not None and package is not None
        other = through(endpoint, package.manifest.inputs)
        return flights.not_worse(
            "production", gates.production, gates.holdout, split(), model(), other
        )

    checks = [
        Check(("base_rate.auc", "base_rate.log_loss"), base_rate, gates.base_rate.required),
        Check(("logistic_regression.auc", "logistic_regression.log_loss"), against_lr,
              gates.logistic_regression.required),
    ]  # fmt: skip
    if subject.production is not None:
        names = ("production.auc", "production.log_loss")
        checks.append(Check(names, against_production, gates.production.required))
    return checks


def _lm(gates: LmGates, subject: Subject) -> list[Check]:
    text = remembered(lambda: (subject.dataset() / gates.holdout.file).read_bytes())
    baselines = remembered(lambda: lm.baselines(text()))

    model = remembered(lambda: lm.score(subject.served().candidate, text(), gates.holdout))

    def against(name: str, gate: lm.BaselineGate) -> list[GateRecord]:
        return [lm.against(name, gate, model(), baselines()[name])]

    def against_production() -> list[GateRecord]:
        endpoint, package = subject.served().production, subject.production
        assert endpoint is not None and package is not None
        digest = subject.staged.candidate.lineage.dataset.digest
        before = lm.measured(package.manifest, digest)
        before = before or lm.score(endpoint, text(), gates.holdout).per_byte
        return [lm.against("production", gates.production, model(), before)]

    checks = [
        Check(("bits.lossless",),
              lambda: [lm.lossless(subject.staged.folder / "version", text())],
              gates.gzip.required or gates.xz.required),
        Check(("bits.vs_gzip",), partial(against, "gzip", gates.gzip), gates.gzip.required),
        Check(("bits.vs_xz",), partial(against, "xz", gates.xz), gates.xz.required),
    ]  # fmt: skip
    if subject.production is not None:
        names = ("bits.vs_production",)
        checks.append(Check(names, against_production, gates.production.required))
    return checks
