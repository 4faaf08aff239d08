"""MLflow's alias of the version in production, for people who look there.

The ledger is what counts; a registry that does not answer is a warning, never a failed rollout,
and nobody waits for it: it is told when the fleet is free again, for some seconds at most.
"""

from __future__ import annotations

import threading
from pathlib import Path


def point_alias(
    mlflow_uri: str,
    model: str,
    version: int,
    passwords: Path | None = None,
    timeout_s: float = 5.0,
) -> str:
    """Let the alias `production` name `version`; returns a sentence if that did not work.

    A site without MLflow has an empty `mlflow_uri`: nothing is done then. `passwords` is the folder
    with this user's account at MLflow.
    """
    if not mlflow_uri:
        return ""
    found = [
        f"{model}/{version} is in production, but MLflow's alias was not set in {timeout_s:g} s: "
        "it does not answer. The ledger has it; the next rollout sets it."
    ]

    def point() -> None:
        found[0] = _point(mlflow_uri, model, version, passwords)

    # A daemon: a registry that hangs must not keep `fab` from ending.
    thread = threading.Thread(target=point, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return found[0]


def _point(mlflow_uri: str, model: str, version: int, passwords: Path | None) -> str:
    try:
        from serving.registry import PRODUCTION, Registry, RegistryError
    except ImportError as error:
        return f"MLflow's alias was not set: {error}. The ledger has it."
    try:
        Registry(mlflow_uri, passwords).set_alias(model, PRODUCTION, version)
    except (RegistryError, ImportError) as error:
        return (
            f"{model}/{version} is in production, but MLflow's alias was not set: {error} "
            "The ledger has it; the next rollout sets it."
        )
    return ""
