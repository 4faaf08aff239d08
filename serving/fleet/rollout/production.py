"""MLflow's alias of the version in production, for people who look there.

The ledger is what counts; a registry that does not answer is a warning, never a failed rollout.
"""

from __future__ import annotations

from pathlib import Path


def point_alias(mlflow_uri: str, model: str, version: int, passwords: Path | None = None) -> str:
    """Let the alias `production` name `version`; returns a sentence if that did not work.

    A site without MLflow has an empty `mlflow_uri`: nothing is done then. `passwords` is the folder
    with this user's account at MLflow.
    """
    if not mlflow_uri:
        return ""
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
