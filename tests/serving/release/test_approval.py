"""`lockgate approve`: signed by one person, attached by another, refused for any other key."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf import ConfigError
from hpc.cli.main import main as lockgate
from serving.artifact import store
from serving.artifact.signature import APPROVER, allowed_signer, sign
from serving.artifact.verify import APPROVAL, MAX_SIGNATURE, Refused, verify_package
from serving.release import approval
from tests.serving.artifact.conftest import make_key, make_manifest, write_files


@pytest.fixture
def approved_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with the version flights/1 and an approver; the folder of their keys."""
    monkeypatch.setenv("LOCKGATE_SITE", str(tmp_path))
    keys = tmp_path / "keys"
    keys.mkdir()
    release, approver = make_key(keys, "release"), make_key(keys, "approver")
    make_key(keys, "stranger")
    (keys / "allowed_signers").write_text(
        allowed_signer(release.with_suffix(".pub").read_text())
        + allowed_signer(approver.with_suffix(".pub").read_text(), APPROVER)
    )
    staged = write_files(store.stage(tmp_path / "store", "v1"))
    manifest = make_manifest(staged, 1)
    store.publish(tmp_path / "store", staged, manifest, sign(manifest.to_bytes(), keys / "release"))
    return keys


def verified(keys: Path) -> int:
    package = keys.parent / "store/flights/1"
    return verify_package(package, keys / "allowed_signers", "flights", 1, approvals=1).version


def test_one_signs_and_another_attaches(
    approved_by: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="approval"):
        verified(approved_by)
    assert lockgate(["approve", "flights/1", "--key", str(approved_by / "approver")]) == 0
    signature, words = capfd.readouterr()
    assert "flights/1 of run run-1" in words and "golden pass" in words and "auc=0.7" in words
    assert signature.startswith("-----BEGIN SSH SIGNATURE-----\n")
    (approved_by / "signature").write_text(signature)
    assert lockgate(["approve", "flights/1", "--attach", str(approved_by / "signature")]) == 0
    assert verified(approved_by) == 1
    folder = approved_by.parent / "store/flights/1"
    assert (folder.stat().st_mode & 0o777, (folder / APPROVAL).stat().st_mode & 0o777) == (
        0o555, 0o444,
    )  # fmt: skip
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(signature.encode())))
    assert lockgate(["approve", "flights/1", "--attach", "-"]) == 0


@pytest.mark.parametrize("key", ["stranger", "release"])
def test_another_key_approves_nothing(
    approved_by: Path, capfd: pytest.CaptureFixture[str], key: str
) -> None:
    assert lockgate(["approve", "flights/1", "--key", str(approved_by / key)]) == 0
    (approved_by / "signature").write_text(capfd.readouterr().out)
    assert lockgate(["approve", "flights/1", "--attach", str(approved_by / "signature")]) == 4
    assert "flights/1 was not approved" in capfd.readouterr().err
    assert not (approved_by.parent / "store/flights/1" / APPROVAL).exists()


def test_a_key_that_releases_and_approves_is_one_person(
    approved_by: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    signers = approved_by / "allowed_signers"
    both = allowed_signer((approved_by / "release.pub").read_text(), APPROVER)
    signers.write_text(signers.read_text() + both)
    assert lockgate(["approve", "flights/1", "--key", str(approved_by / "release")]) == 0
    (approved_by / "signature").write_text(capfd.readouterr().out)
    assert lockgate(["approve", "flights/1", "--attach", str(approved_by / "signature")]) == 4
    assert "one key" in capfd.readouterr().err


@pytest.mark.parametrize("content", [b"", b"trust me", b"x" * (MAX_SIGNATURE + 1)])
def test_what_is_no_signature_is_not_kept(
    approved_by: Path, capfd: pytest.CaptureFixture[str], content: bytes
) -> None:
    (approved_by / "signature").write_bytes(content)
    assert lockgate(["approve", "flights/1", "--attach", str(approved_by / "signature")]) == 4
    assert "not an SSH signature" in capfd.readouterr().err


def test_a_changed_package_is_not_signed(
    approved_by: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = approved_by.parent / "store/flights/1/config.pbtxt"
    file.chmod(0o644)
    file.write_text("name: 'x'\n")
    assert lockgate(["approve", "flights/1", "--key", str(approved_by / "approver")]) == 4
    signature, words = capfd.readouterr()
    assert signature == "" and "config.pbtxt" in words


@pytest.mark.parametrize("text", ["flights", "flights/", "flights/0", "flights/01", "flights/x/1",
                                  "flights/1\n", "../1", "a b/1", "/1", "flights/٣"])  # fmt: skip
def test_a_word_that_is_no_version_is_a_mistake(approved_by: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        approval.main([text, "--key", str(approved_by / "approver")])


def test_an_absent_version_names_the_nearest(
    approved_by: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lockgate(["approve", "flights/7", "--key", str(approved_by / "approver")]) == 2
    assert "nearest: flights/1" in capfd.readouterr().err


def test_signing_needs_no_right_to_write_in_the_store(approved_by: Path) -> None:
    argv = [sys.executable, "-m", "hpc.cli.main", "approve", "flights/1", "--key"]
    before = sorted(path.stat().st_mtime_ns for path in (approved_by.parent / "store").rglob("*"))
    done = subprocess.run([*argv, str(approved_by / "approver")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = sorted(path.stat().st_mtime_ns for path in (approved_by.parent / "store").rglob("*"))
    assert before == after
