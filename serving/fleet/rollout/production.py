"""MLflow's alias of the version in production, for people who look there.

The ledger is what counts; a registry that does not answer is a warning, never a failed rollout.
"""

from __future__ import annotations


def point_alias(mlflow_uri: str, model: str, version: int) -> str:
    """Let the alias `production` name `version`; returns a sentence if that did not work.

    A site without MLflow has an empty `mlflow_uri`: nothing is done then.
    """
    if not mlflow_uri:
        return ""
    try:
        from serving.release.registry import PRODUCTION, Registry, RegistryError
    except ImportError as error:
        return f"MLflow's alias was not set: {error}. The ledger has it."
    try:
        Registry(mlflow_uri).set_alias(model, PRODUCTION, version)
    except (RegistryError, ImportError) as error:
        return (
            f"{model}/{version} is in production, but MLflow's alias was not set: {error} "
            "The ledger has it; the next rollout sets it."
        )
    return ""
