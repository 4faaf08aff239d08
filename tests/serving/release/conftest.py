"""A site folder with keys and a dataset; MLflow's database is made once and copied."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.artifact.signature import allowed_signer
from serving.triton import TritonNotInstalled, TritonServer
from tests.confined import make_gates_folder

from . import tiny


@pytest.fixture(scope="session")
def dataset_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def site(tmp_path: Path, dataset_template: Path) -> Path:
    """`.site` in small: keys/, data/flights/<digest>/, runs/."""
    root = tmp_path / "site"
    key = root / "keys/release/id_ed25519"
    key.parent.mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text()
    (root / "keys/allowed_signers").write_text(allowed_signer(public))
    (root / "runs").mkdir()
    shutil.copytree(dataset_template, root / "data/flights" / dataset_template.name)
    return root


@pytest.fixture
def dataset(site: Path, dataset_template: Path) -> Path:
    return site / "data/flights" / dataset_template.name


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: creating its tables takes seconds."""
    from serving.registry import Registry

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert Registry(f"sqlite:///{path}").version_of("nothing", "candidate") is None
    return path


@pytest.fixture
def mlflow_db(site: Path, mlflow_template: Path) -> str:
    """The URI of a fresh MLflow database at the place where the settings of `site` look."""
    shutil.copyfile(mlflow_template, site / "mlflow.db")
    return f"sqlite:///{site}/mlflow.db"


@pytest.fixture
def triton_env(site: Path) -> Iterator[Path]:
    """The serving environment, and a folder for confined servers; skips where there is none."""
    env = tiny.serving_env()
    try:
        TritonServer(env, Path(), "", None, 0, None).argv()
    except TritonNotInstalled as reason:
        pytest.skip(f"{reason} (or point LOCKGATE_SERVING_ENV at one)")
    gates = make_gates_folder(tiny.gates_folder(site))
    yield env
    assert list(gates.iterdir()) == []  # every server's folder went with it
    gates.rmdir()
