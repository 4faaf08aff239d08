"""Version numbers and aliases in MLflow's model registry. The one place that imports MLflow here.

MLflow gives the number, the store gives the version: a registered version whose folder is not in
the store is what a killed release left, and is taken up again or deleted under the release lock.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.credentials import set_mlflow_account
from conf.errors import INCOMPLETE, UNREACHABLE, LockgateError

CANDIDATE, PRODUCTION = "candidate", "production"
DIGEST_TAG, RUN_TAG = "lockgate.digest", "lockgate.run"


class RegistryError(LockgateError, RuntimeError):
    """MLflow did not answer, or contradicts itself; the message has the call and the reason."""

    exit_code = UNREACHABLE


class PublishedNotRegistered(RegistryError):
    """A version is whole in the store, but MLflow lacks its tags or its alias."""

    exit_code = INCOMPLETE

    def __init__(self, model: str, version: int, reason: RegistryError) -> None:
        super().__init__(
            f"{model}/{version} is published in the store, but not registered: {reason} "
            "Run the same command again: it registers this version and makes no new one."
        )


@dataclass(frozen=True)
class Registry:
    """The registry at a tracking `uri` (http://..., or sqlite:///...).

    `passwords` is the folder with this user's own account at it (see `conf.credentials`).
    """

    uri: str
    passwords: Path | None = None

    def number_for(self, model: str, digest: str, run: str, store: Mapping[int, str]) -> int:
        """The version number for the candidate with this content `digest`.

        `store` are the versions that are in the store, number -> content digest. A number that a
        killed release of the same content was given is used again; other numbers of killed
        releases are deleted (MLflow never gives a number twice). After the registry was lost, the
        versions that the store holds are registered again first. Raises RegistryError.
        """
        newest, reuse = max(store, default=0), None
        for version in self._versions(model):
            number = int(version.version)
            if number in store or RUN_TAG not in version.tags:
                continue
            if version.tags.get(DIGEST_TAG) == digest and number > newest and reuse is None:
                reuse = number
            else:
                self._call("delete_model_version", model, str(number))
        if reuse is not None:
            return reuse
        while (number := self._create(model, digest, run)) <= newest:
            if number in store:
                self.set_tags(model, number, {DIGEST_TAG: store[number]})
            else:
                self._call("delete_model_version", model, str(number))
        return number

    def set_tags(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Write tags of a published version."""
        for key, value in tags.items():
            self._call("set_model_version_tag", model, str(version), key, value)

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Let `alias` name `version`."""
        if self.version_of(model, alias) != version:
            self._call("set_registered_model_alias", model, alias, str(version))

    def version_of(self, model: str, alias: str) -> int | None:
        """The version that `alias` names; None when the model or the alias does not exist."""
        for found in self._call("search_registered_models", filter_string=f"name='{model}'"):
            number = found.aliases.get(alias)
            return None if number is None else int(number)
        return None

    def _versions(self, model: str) -> list[Any]:
        return list(self._call("search_model_versions", f"name='{model}'", max_results=10_000))

    def _create(self, model: str, digest: str, run: str) -> int:
        if not self._call("search_registered_models", filter_string=f"name='{model}'"):
            self._call("create_registered_model", model)
        made = self._call(
            "create_model_version",
            model,
            # The server refuses paths of its own machine; the store is not MLflow's to read.
            source=f"lockgate://store/{model}/{digest}",
            run_id=self._run_id(run),
            tags={DIGEST_TAG: digest, RUN_TAG: run},
            await_creation_for=0,
        )
        return int(made.version)

    def _run_id(self, run: str) -> str | None:
        """MLflow's own id of the run, so that its page links to the version; None when unknown."""
        experiments = [one.experiment_id for one in self._call("search_experiments")]
        query = f"tags.`{RUN_TAG}` = '{run}'"
        found = self._call("search_runs", experiments, query, max_results=1) if experiments else []
        return found[0].info.run_id if found else None

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        client, error_type = self._client()
        try:
            return getattr(client, method)(*arguments, **named)
        except error_type as error:
            reason = str(error).splitlines()[0][:300]
            raise RegistryError(
                f"the MLflow registry at {self.uri} did not do {method}: {reason}. "
                "Is it up (scripts/site status)?"
            ) from None

    def _client(self) -> tuple[Any, type[Exception]]:
        if self.passwords is not None:
            try:
                set_mlflow_account(self.passwords)
            except OSError as error:
                raise RegistryError(f"this user's account at MLflow: {error}.") from error
        return _mlflow(self.uri)


def _mlflow(uri: str) -> tuple[Any, type[Exception]]:
    """A client and its error type. MLflow takes seconds to import, so only when it is needed."""
    # Without these a registry that is down is waited for during many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    return MlflowClient(tracking_uri=uri, registry_uri=uri), MlflowException
