"""A signed package made with real ssh-keygen keys, to be spoiled by the tests."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from serving.artifact import signature, store
from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import GateRecord, Manifest, list_files
from serving.artifact.tensors import TensorSpec
from serving.artifact.verify import FORMAT

FILES = {
    "candidate.json": b"{}\n",
    "config.pbtxt": b'name: "flights"\n',
    "golden.json": b"[]\n",
    "version/model.onnx": bytes(range(256)),
    "version/model.py": b"import lockgate_runtime\n",
    "version/lockgate_runtime/__init__.py": b"",
}


def make_key(folder: Path, name: str) -> Path:
    key = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True
    )
    return key


def make_manifest(staged: Path, version: int = 3, model: str = "flights") -> Manifest:
    return Manifest(
        format=FORMAT,
        model=model,
        version=version,
        task="flights",
        created="2026-01-02T03:04:05Z",
        expires="2099-01-02T03:04:05Z",
        files=list_files(staged),
        inputs=(TensorSpec("distance", "FP32", (-1, 1)),),
        outputs=(TensorSpec("late_probability", "FP32", (-1, 1)),),
        transform_digest="1" * 64,
        lineage=Lineage("run-1", "2" * 64, "3" * 64, DatasetRef("flights", "4" * 64)),
        requires={"triton": ">=2.51", "numpy": "<2"},
        metrics={"auc": 0.7},
        gates=(GateRecord("golden", "pass", True, 0.0, 1e-6, "8 of 8 equal"),),
        previous=None,
    )


@dataclass(frozen=True)
class Keys:
    ours: Path
    foreign: Path
    allowed: Path


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    ours, foreign = make_key(folder, "ours"), make_key(folder, "foreign")
    allowed = folder / "allowed_signers"
    allowed.write_text(signature.allowed_signer(ours.with_suffix(".pub").read_text()))
    return Keys(ours, foreign, allowed)


def write_files(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def publish(keys: Keys, tmp_path: Path) -> Callable[..., Path]:
    """Publish version N of FILES into `tmp_path/store`, signed by `key`; returns its folder."""

    def do(version: int = 3, key: Path | None = None, **changes: object) -> Path:
        staged = write_files(store.stage(tmp_path / "store", f"v{version}"))
        manifest = replace(make_manifest(staged, version), **changes)  # type: ignore[arg-type]
        signed = signature.sign(manifest.to_bytes(), key or keys.ours)
        return store.publish(tmp_path / "store", staged, manifest, signed)

    return do


@pytest.fixture
def package(publish: Callable[..., Path]) -> Path:
    """A good package that the test may write in."""
    path = publish()
    for folder in (path, *(p for p in path.rglob("*"))):
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    return path
