"""A release from end to end: copy, gates, number, sign, publish, point.

Killed anywhere and run again it ends well: what is not yet a version is only a staging folder or an
unpublished number, both found and used or removed by the next release, and what is a version is
found by its run and content, and only has its alias set again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conf.errors import LockgateError
from serving.artifact import store
from serving.artifact.candidate import read_candidate
from serving.artifact.digest import pairs_digest
from serving.artifact.manifest import FileEntry, GateRecord, Manifest
from serving.artifact.signature import check_signature
from serving.artifact.store import Package
from serving.artifact.verify import FORMAT, format_time
from serving.registry import CANDIDATE, PublishedNotRegistered, Registry, RegistryError
from serving.release import candidate, report
from serving.release.candidate import StagedCandidate
from serving.release.dataset import find_dataset
from serving.release.gate import may_release, run_gates
from serving.release.lock import release_lock
from serving.release.production import NONE, production_package, production_version
from serving.release.report import ReleaseReport
from serving.release.settings import ReleaseSettings
from serving.release.signing import sign_as_user
from serving.release.subject import GateSubject, ServedPackages
from serving.triton.ephemeral import EphemeralServer, serve_packages, sweep_folders

Progress = Callable[[str], None]


class ReleaseError(LockgateError, RuntimeError):
    """The release could not be done for a reason that is no gate's; nothing was published."""


def release_candidate(
    settings: ReleaseSettings, progress: Progress, dry_run: bool = False
) -> ReleaseReport:
    """Release the candidate of `settings.run`; returns the outcome, a refusal included.

    With `dry_run` the gates are run and nothing is kept. Raises OsUserError and ConfinementError
    where a candidate cannot be confined, CandidateError, Refused,
    ReleaseLocked, ProductionUnknown, RegistryError, SigningError, StoreError, OSError, and the
    store then holds what it held before; PublishedNotRegistered when only the registry's part is
    missing.
    """
    settings.confinement.check()
    found = read_candidate(settings.candidate)
    with release_lock(settings.store, found.model, settings.run), ExitStack() as stack:
        _sweep(settings.store, found.model)
        sweep_folders(settings.gates_folder, found.model)
        package = store.stage(settings.store, f"{found.model}.package")
        stack.callback(_discard_if_there, package)
        progress(f"take {settings.run}")
        staged = candidate.stage_candidate(settings.candidate, package, settings.max_bytes)
        _check_run(staged, settings.run, found.model)
        registry = Registry(settings.mlflow_uri, settings.passwords)
        done = _released(settings.store, staged)
        if done is not None and not dry_run:
            return _unchanged(done, registry, settings.journal)
        production = _production(settings, found.model)
        if not dry_run:
            _check_key(settings)
        started, clock = _now(), time.monotonic()
        gates = gate_records(settings, staged, production, progress)
        passed = may_release(gates)
        result = ReleaseReport(
            outcome="passed" if passed else "refused",
            model=found.model,
            version=None,
            run=settings.run,
            digest=None,
            production=production.manifest.version if production else None,
            started=started,
            seconds=round(time.monotonic() - clock, 1),
            gates=gates,
            code=staged.own_code,
        )
        if passed and not dry_run:
            result = _publish(settings, staged, registry, result, progress)
        if not dry_run:
            report.keep_report(result, settings.store)
        return result


def gate_records(
    settings: ReleaseSettings,
    staged: StagedCandidate,
    production: Package | None,
    progress: Progress,
) -> tuple[GateRecord, ...]:
    """Every gate's record; confined servers are started for it and ended."""
    model, records = staged.candidate.model, []
    with ExitStack() as stack:

        def start() -> ServedPackages:
            servers = [EphemeralServer("candidate", staged.folder, model)]
            if production is not None:
                servers.append(EphemeralServer("production", production.path, model))
            progress(f"start {len(servers)} confined tritonserver(s)")
            clients = stack.enter_context(
                serve_packages(
                    servers,
                    settings.serving_env,
                    settings.confinement,
                    settings.ephemeral.patience,
                )
            )
            return ServedPackages(clients[0], clients[1] if production is not None else None)

        subject = GateSubject(
            staged=staged,
            production=production,
            allow_breaking=settings.allow_breaking,
            serving_env=settings.serving_env,
            in_flight=settings.ephemeral.in_flight,
            start_servers=start,
            find_dataset=lambda: find_dataset(settings.data, staged.candidate.lineage.dataset),
        )
        for record in run_gates(settings.gates, subject):
            progress(report.progress_line(record))
            records.append(record)
    return tuple(records)


def _publish(
    settings: ReleaseSettings,
    staged: StagedCandidate,
    registry: Registry,
    result: ReleaseReport,
    progress: Progress,
) -> ReleaseReport:
    """Number, sign, publish, point. Each step may be the last one that happens."""
    model, content = result.model, _content(staged.files)
    number = registry.number_for(model, content, result.run, _contents(settings.store, model))
    progress(f"number {model}/{number}")
    now = datetime.now(UTC)
    manifest = Manifest(
        format=FORMAT,
        model=model,
        version=number,
        task=staged.candidate.task,
        created=format_time(now),
        expires=format_time(now + timedelta(days=settings.valid_days)),
        files=staged.files,
        inputs=staged.candidate.inputs,
        outputs=staged.candidate.outputs,
        transform_digest=staged.candidate.transform_digest,
        lineage=staged.candidate.lineage,
        requires=staged.candidate.requires,
        metrics=staged.candidate.metrics,
        gates=result.gates,
        previous=result.production,
        code=tuple(entry.path for entry in staged.own_code),
    )
    progress("sign")
    signature = _signature(settings, manifest.to_bytes())
    path = store.publish(settings.store, staged.folder, manifest, signature)
    progress(f"published {path}")
    _register(registry, manifest)
    released = {"outcome": "released", "version": number, "digest": manifest.digest}
    return ReleaseReport(**{**vars(result), **released, "path": str(path)})  # type: ignore[arg-type]


def _unchanged(done: Package, registry: Registry, journal: Path) -> ReleaseReport:
    """The report of an earlier release, its registration completed if a kill had cut it short."""
    manifest = done.manifest
    model = manifest.model
    if manifest.version == max(store.versions(done.path.parents[1], model)):
        _register(registry, manifest)
    return ReleaseReport(
        outcome="unchanged",
        model=model,
        version=manifest.version,
        run=manifest.lineage.run,
        digest=manifest.digest,
        production=production_version(journal, model),
        started=_now(),
        seconds=0.0,
        gates=manifest.gates,
        code=tuple(entry for entry in manifest.files if entry.path in manifest.code),
        path=str(done.path),
    )


def _register(registry: Registry, manifest: Manifest) -> None:
    """Tag the published version in MLflow and set its alias. Raises PublishedNotRegistered."""
    tags = {
        "lockgate.manifest": manifest.digest,
        "lockgate.dataset": manifest.lineage.dataset.digest,
    }
    try:
        registry.set_tags(manifest.model, manifest.version, tags)
        registry.set_alias(manifest.model, CANDIDATE, manifest.version)
    except RegistryError as error:
        raise PublishedNotRegistered(manifest.model, manifest.version, error) from error


def _production(settings: ReleaseSettings, model: str) -> Package | None:
    """The package to compare with; None for a first release, and where a person chose so."""
    if settings.production == NONE:
        return None
    return production_package(
        settings.store, settings.journal, settings.allowed_signers, model, settings.run
    )


def _released(root: Path, staged: StagedCandidate) -> Package | None:
    """The version made of this run with exactly these files, if there is one."""
    done = store.find_run(root, staged.candidate.model, staged.candidate.lineage.run)
    return done if done is not None and done.manifest.files == staged.files else None


def _contents(root: Path, model: str) -> dict[int, str]:
    numbers = store.versions(root, model)
    return {number: _content(store.get(root, model, number).manifest.files) for number in numbers}


def _content(files: tuple[FileEntry, ...]) -> str:
    return pairs_digest((entry.path, entry.sha256) for entry in files)


def _check_key(settings: ReleaseSettings) -> None:
    """Sign nothing, and check it as a host will: before minutes of gates, not after them."""
    check_signature(b"", _signature(settings, b""), settings.allowed_signers)


def _signature(settings: ReleaseSettings, data: bytes) -> bytes:
    return sign_as_user(data, settings.sign_as, settings.release_key, settings.signed)


def _check_run(staged: StagedCandidate, run: str, model: str) -> None:
    found, claimed = staged.candidate, staged.candidate.lineage.run
    if (claimed, found.model) != (run, model):
        raise ReleaseError(
            f"the candidate in run {run} is marked {found.model} of run {claimed!r}; it was "
            "copied from elsewhere or changed while it was read"
        )


def _discard_if_there(folder: Path) -> None:
    if folder.exists():  # it has become a version otherwise
        store.discard(folder)


def _sweep(root: Path, model: str) -> None:
    """Remove what a killed release of this model left; the lock proves that it is dead."""
    for folder in (Path(root) / store.STAGING).glob(f"{model}.*"):
        store.discard(folder)


def _now() -> str:
    return format_time(datetime.now(UTC))
