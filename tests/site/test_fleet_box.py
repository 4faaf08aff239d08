"""The fleet of the box, through `fab` as the deploy identity; what it serves is left as it was.

A model of its own is pushed through every check that must refuse it, while the box goes on serving
whatever it serves.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.site, pytest.mark.slow]


def _beds():
    path = REPO / "tests" / "serving" / "fleet" / "bed.py"
    spec = importlib.util.spec_from_file_location("bed", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bed"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def store():
    # Not pytest's tmp_path, which the deploy identity may not enter.
    with tempfile.TemporaryDirectory(prefix="lockgate-store-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for path in Path(folder).rglob("*"):
            if path.is_dir():
                path.chmod(0o755)


def fab(box, store: Path, *arguments: str):
    return box.command(
        "as", "deploy", "fab", *arguments, "--set", f"site.paths.store={store}",
        "--set", "rollout.settle_s=0.5",
    )  # fmt: skip


def served(box) -> list:
    """What clients get; a model whose first deploy failed has rows, and no version in them."""
    status = json.loads(box.command("as", "deploy", "fab", "status", "--json").stdout)
    return [
        (r["host"], r["model"], r["serving"], r["edge"]) for r in status["rows"] if r["serving"]
    ]


def traces(box) -> list[Path]:
    """Files of the package on any host; a lock and a counter in its state are none."""
    hosts = Path(box.site.paths.hosts)
    return [path for path in hosts.glob("*/*/toy*") if path.parent.name != "state"]


def test_every_host_refuses_a_tampered_package(box, store):
    before = served(box)
    package = _beds().publish(store, Path(box.site.paths.release_key), 1, 2.0)
    model = package / "version" / "model.py"
    model.chmod(0o644)
    model.write_text(model.read_text().replace("factor", "fact0r"))
    done = fab(box, store, "deploy", "--model", "toy")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "refused toy/1: changed-file" in done.stdout
    assert served(box) == before and traces(box) == []


def test_wrong_answers_are_undone_to_nothing(box, store):
    before = served(box)
    _beds().publish(store, Path(box.site.paths.release_key), 1, 2.0, golden=3.0)
    done = fab(box, store, "deploy", "--model", "toy")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "golden example" in done.stdout and "as it was before" in done.stdout
    assert served(box) == before
    for host in box.site.hosts:
        assert not (Path(box.site.paths.hosts) / host / "model-repository" / "toy").exists()
        shutil.rmtree(Path(box.site.paths.hosts) / host / "packages" / "toy", ignore_errors=True)


def test_another_identity_cannot_deploy_and_is_told_how(box, store):
    _beds().publish(store, Path(box.site.paths.release_key), 1, 2.0)
    done = box.command(
        "as", "observe", "fab", "deploy", "--model", "toy", "--set", f"site.paths.store={store}"
    )
    assert done.returncode == 2
    assert "Run fab as the deploy identity" in done.stderr and "Traceback" not in done.stderr


def test_a_deployment_cannot_choose_whom_a_host_believes(box):
    host = next(iter(box.site.hosts))
    etc = Path(box.site.paths.hosts) / host / "etc"
    for name in ("verify.py", "allowed_signers", "authorized_keys"):
        status = (etc / name).stat()
        assert (status.st_uid, status.st_mode & 0o022) == (0, 0), name
    assert etc.stat().st_uid == 0 and not etc.stat().st_mode & 0o022
