"""The load of a rollout: one signed version from the store, with its golden examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from serving.artifact import golden, store
from serving.artifact.digest import bytes_sha256
from serving.artifact.golden import GoldenError, GoldenExample, read_examples
from serving.artifact.manifest import Manifest, ManifestError
from serving.artifact.store import StoreError
from serving.fleet.errors import FleetConfigError, FleetRefusal, denied
from serving.triton.model_config import ModelConfigError, parse_config


@dataclass(frozen=True)
class Shipment:
    """A version on its way. `config` is its config.pbtxt, `size` its bytes in all files.

    The files are not verified here: each host does that, against the signers it trusts.
    """

    path: Path
    manifest: Manifest
    config: str
    examples: tuple[GoldenExample, ...]

    @property
    def model(self) -> str:
        """The model's name."""
        return self.manifest.model

    @property
    def version(self) -> int:
        """The version's number."""
        return self.manifest.version

    @property
    def digest(self) -> str:
        """sha256 of the manifest: what a host must find too."""
        return self.manifest.digest

    @property
    def size(self) -> int:
        """Bytes of all files of the package."""
        return sum(entry.bytes for entry in self.manifest.files)

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


def read_shipment(folder: Path, model: str, version: int | None = None) -> Shipment:
    """The shipment of `model`'s `version`, the newest when None, from the store in `folder`.

    Raises FleetConfigError when the store lacks it, FleetRefusal when the two files that the
    controller itself uses (config.pbtxt, golden.json) are not those of the manifest.
    """
    try:
        package = store.get(folder, model, version)
    except StoreError as error:
        raise FleetConfigError(str(error)) from error
    except ManifestError as error:
        raise FleetRefusal(f"{error}. Nothing was changed; release it again.") from error
    except PermissionError as error:
        raise denied("cannot read the store", folder, error) from error
    config = _own(package.path, package.manifest, "config.pbtxt").decode()
    try:
        parse_config(config)
    except ModelConfigError as error:
        raise FleetRefusal(f"{package.path}: {error}") from error
    _own(package.path, package.manifest, golden.FILE)
    return Shipment(package.path, package.manifest, config, _examples(package.path))


def _examples(package: Path) -> tuple[GoldenExample, ...]:
    try:
        examples = read_examples(package)
    except GoldenError as error:
        raise FleetRefusal(str(error)) from error
    if not examples:
        raise FleetRefusal(
            f"{package} has no golden examples: without them no host can be checked."
        )
    return examples


def _own(folder: Path, manifest: Manifest, name: str) -> bytes:
    where = f"{manifest.model}/{manifest.version} in the store"
    listed = {entry.path: entry.sha256 for entry in manifest.files}
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise FleetRefusal(
            f"{where} lacks {name}: {error.strerror}. Nothing was changed; release it again."
        ) from error
    if listed.get(name) != bytes_sha256(content):
        raise FleetRefusal(
            f"{where}: {name} is not the one that was released (sha256 differs from the manifest). "
            "Nothing was changed; release it again."
        )
    return content
