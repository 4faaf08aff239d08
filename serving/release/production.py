"""The version in production that a candidate is compared with, as the journal's ledger names it.

MLflow's alias is for people: whoever may write there could delete it, and the gates that compare
with production would pass unseen. The ledger is deploy's, and the release only reads it.
"""

from __future__ import annotations

from pathlib import Path

from conf.errors import REFUSED, LockgateError
from serving.artifact import store
from serving.artifact.store import Package
from serving.artifact.verify import verify_package
from serving.fleet.rollout.journal import Journal, history

LEDGER, NONE = "ledger", "none"
BASELINES = (LEDGER, NONE)
"""Values of `production` in conf/release.yaml."""


class ProductionUnknown(LockgateError, RuntimeError):
    """The store has versions of a model, and none of them can be taken as the one in production."""

    exit_code = REFUSED


def production_version(journal: Path, model: str) -> int | None:
    """The version of `model` that the ledger in `journal` calls production; None for none.

    Raises ProductionUnknown where the ledger may not be read.
    """
    try:
        stack = history(Journal(journal).productions(model))
    except PermissionError as error:
        raise ProductionUnknown(
            f"the ledger in {journal} cannot be read ({error.strerror}): what {model} has in "
            f"production is not known. As its owner: chmod a+rx {journal}; chmod a+r {journal}/*"
        ) from error
    return stack[-1] if stack else None


def production_package(
    root: Path, journal: Path, allowed_signers: Path, model: str, run: str
) -> Package | None:
    """The version in production out of the store `root`, verified before anything of it is run.

    None where the store has no version of `model` but what `run` itself was released as: a first
    release. Raises ProductionUnknown where it has others and the ledger names none; Refused for a
    package that is not as it was signed.
    """
    number = production_version(journal, model)
    if number is None:
        others = [
            one
            for one in store.versions(root, model)
            if store.get(root, model, one).manifest.lineage.run != run
        ]
        if others:
            raise ProductionUnknown(
                f"the store has {model}/{others[-1]}, but the ledger in {journal} names no version "
                f"of {model} in production: there is nothing to compare {run} with. Deploy one "
                f"first, as in fab deploy --model {model} --version {others[-1]}, or release "
                f"without a comparison: lockgate release run={run} production={NONE}"
            )
        return None
    package = store.get(root, model, number)
    verify_package(package.path, allowed_signers, model, number, accept_expired=True)
    return package
