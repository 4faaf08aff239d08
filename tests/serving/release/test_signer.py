"""The signer: what it signs, what it refuses, and that it is another user than the release."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.manifest import FileEntry, GateRecord, Manifest, ManifestError
from serving.artifact.signature import SigningError, allowed_signer, check_signature
from serving.artifact.verify import FORMAT
from serving.os_user import OsUserError
from serving.release.signer import MAX_MANIFEST_BYTES, SignatureRefused, sign_manifest
from serving.release.signing import sign_as_user, signer_command
from tests.confined import USER, group_of_user

PASSED = GateRecord("golden.equal", "pass", True, 0.0, 0.0, "")
MANIFEST = Manifest(
    format=FORMAT,
    model="flights",
    version=3,
    task="flights",
    created="2026-11-26T20:00:00Z",
    expires="2027-11-26T20:00:00Z",
    files=(FileEntry("version/model.py", "a" * 64, 10),),
    inputs=(),
    outputs=(),
    transform_digest="1" * 64,
    lineage=Lineage("run", "2" * 64, "3" * 64, DatasetRef("flights", "4" * 64, "/data")),
    requires={},
    metrics={},
    gates=(PASSED,),
)


@pytest.fixture
def keys() -> Iterator[Path]:
    """Folders as a site has them, outside what pytest keeps for its own user."""
    folder = Path(tempfile.mkdtemp(prefix="lockgate-sign-"))
    folder.chmod(0o755)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True
    )
    (folder / "allowed_signers").write_text(allowed_signer((folder / "key.pub").read_text()))
    (folder / "signed").mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder)


def sign(manifest: Manifest, keys: Path) -> bytes:
    return sign_manifest(manifest.to_bytes(), keys / "key", keys / "signed")


def test_a_manifest_whose_gates_passed_is_signed_as_a_host_checks_it(keys: Path) -> None:
    check_signature(MANIFEST.to_bytes(), sign(MANIFEST, keys), keys / "allowed_signers")
    nothing = sign_manifest(b"", keys / "key", keys / "signed")
    check_signature(b"", nothing, keys / "allowed_signers")


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ((), "flights/3 has no gate at all"),
        ((replace(PASSED, required=False),), "no gate at all"),
        ((PASSED, replace(PASSED, name="bits", verdict="unknown")), "did not pass: bits"),
        ((PASSED, replace(PASSED, name="auc", verdict="fail")), "did not pass: auc"),
    ],
)
def test_gates_that_did_not_pass_are_not_signed(
    keys: Path, gates: tuple[GateRecord, ...], said: str
) -> None:
    with pytest.raises(SignatureRefused, match=said) as refused:
        sign(replace(MANIFEST, gates=gates), keys)
    assert refused.value.exit_code == 4
    assert list((keys / "signed").iterdir()) == []
    reported = replace(PASSED, name="auc", verdict="fail", required=False)
    assert sign(replace(MANIFEST, gates=(PASSED, reported)), keys)


def test_a_version_is_signed_for_one_content_only(keys: Path) -> None:
    sign(MANIFEST, keys)
    other = replace(MANIFEST, files=(FileEntry("version/model.py", "b" * 64, 10),))
    with pytest.raises(SignatureRefused, match="flights/3 was signed before with other files"):
        sign(other, keys)
    assert sign(replace(other, version=4), keys)
    # A release that was killed between its signature and its version comes again, later.
    assert sign(replace(MANIFEST, created="2026-11-26T21:00:00Z"), keys)


@pytest.mark.parametrize(
    "data",
    [
        b"7",
        b"{}",
        b"tree 0\n",
        b"[" * 100_000,
        json.dumps({"model": "flights"}).encode(),
        MANIFEST.to_bytes() + b" ",
        MANIFEST.to_bytes().replace(b'"flights"', b'"flights", "model": "other"', 1),
        b" " * (MAX_MANIFEST_BYTES + 1),
    ],
)
def test_what_is_no_manifest_is_not_signed(keys: Path, data: bytes) -> None:
    with pytest.raises((ManifestError, SignatureRefused)):
        sign_manifest(data, keys / "key", keys / "signed")


@pytest.mark.parametrize("model", ["../../x", "/etc", "..", ""])
def test_a_model_that_is_no_name_is_not_signed(keys: Path, model: str) -> None:
    with pytest.raises(SignatureRefused, match="cannot name a folder"):
        sign(replace(MANIFEST, model=model), keys)


def test_the_signer_runs_as_the_user_that_owns_the_key(keys: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to run the signer as another user")
    for path in (keys / "key", keys / "signed"):
        shutil.chown(path, USER, group_of_user())
    here = (USER, keys / "key", keys / "signed")
    signature = sign_as_user(MANIFEST.to_bytes(), *here)
    check_signature(MANIFEST.to_bytes(), signature, keys / "allowed_signers")
    record = keys / "signed/flights/3"
    assert record.stat().st_uid == pwd.getpwnam(USER).pw_uid
    failed = replace(MANIFEST, gates=(replace(PASSED, verdict="fail"),))
    with pytest.raises(SignatureRefused, match=f"run as {USER}, did not sign: flights/3 has gates"):
        sign_as_user(failed.to_bytes(), *here)
    (keys / "key").chmod(0)
    with pytest.raises(SigningError, match="did not sign: signing with"):
        sign_as_user(MANIFEST.to_bytes(), *here)


def test_the_user_that_signs_is_never_the_one_that_releases(keys: Path) -> None:
    own = pwd.getpwuid(os.geteuid()).pw_name
    with pytest.raises(OsUserError, match=f"sign_as={own}: owns the key"):
        sign_as_user(b"", own, keys / "key", keys / "signed")
    with pytest.raises(OsUserError, match="no OS user 'lg-nobody-knows': scripts/site up makes"):
        sign_as_user(b"", "lg-nobody-knows", keys / "key", keys / "signed")


def test_the_command_line_is_fixed_by_the_key_and_the_record_alone() -> None:
    line = signer_command(Path("/k"), Path("/r"))
    assert line[:3] == ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin"]
    assert line[-4:] == ["-m", "serving.release.signer", "/k", "/r"] and "-P" in line
