"""The versions that must answer on a host, by a controller's word: state/<model>.wanted.json.

Not by config.pbtxt: the verification before a start takes what is not as signed out of that, and a
host that came up without one of its versions is not well. Where a controller has not spoken since
this file is kept, the config has the word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.artifact.durable import replace_file
from serving.host import repository
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.triton.model_config import ModelConfigError, versions_in

_SUFFIX = ".wanted.json"


@dataclass(frozen=True)
class WantedVersions:
    """Versions that a controller last persisted, and those loaded since (None: no such load)."""

    persisted: tuple[int, ...]
    serving: tuple[int, ...] | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        """Those persisted, but for what is being taken away.

        A version that is loaded and not yet persisted is not proven, and may fail without harm.
        """
        return tuple(v for v in self.persisted if self.serving is None or v in self.serving)


def remember_persisted(home: HostHome, model: str, versions: Sequence[int]) -> None:
    """Remember that a controller wants these served from now on, also by a restarted Triton."""
    _write(home, model, WantedVersions(tuple(versions)))


def remember_serving(home: HostHome, model: str, versions: Sequence[int]) -> None:
    """Remember that a controller has these loaded now; nothing else of the model is wanted."""
    _write(home, model, WantedVersions(_read(home, model).persisted, tuple(versions)))


def wanted_versions(home: HostHome) -> set[tuple[str, int]]:
    """The (model, version) of every version that must answer. Raises HostRefusal("state")."""
    written = {path.name.removesuffix(_SUFFIX) for path in home.state.glob(f"*{_SUFFIX}")}
    found = {path.name for path in repository.models_in(home.repository)}
    return {
        (model, version) for model in written | found for version in _read(home, model).versions
    }


def _read(home: HostHome, model: str) -> WantedVersions:
    path = _path(home, model)
    try:
        content = json.loads(path.read_bytes())
        serving = content["serving"]
        return WantedVersions(
            tuple(content["persisted"]), None if serving is None else tuple(serving)
        )
    except FileNotFoundError:
        return WantedVersions(configured_versions(home, model))
    except (ValueError, KeyError, TypeError) as error:
        raise HostRefusal("state", f"{path} cannot be read: {error!r}; remove it") from None


def configured_versions(home: HostHome, model: str) -> tuple[int, ...]:
    """The versions in the model's config.pbtxt; none for one that Triton could not read."""
    try:
        return versions_in(repository.persisted_text(home, model))
    except ModelConfigError:
        return ()


def _write(home: HostHome, model: str, wanted: WantedVersions) -> None:
    replace_file(_path(home, model), json.dumps(asdict(wanted), sort_keys=True) + "\n")


def _path(home: HostHome, model: str) -> Path:
    return home.state / f"{model}{_SUFFIX}"
