"""Signing with real keys; what cannot be signed says what to do, and never waits for a person."""

import subprocess
from pathlib import Path

import pytest

from serving.artifact.signature import (
    Refused,
    SigningError,
    allowed_signer,
    check_signature,
    sign,
)

from .conftest import Keys


def test_what_we_sign_is_accepted_and_nothing_else(keys: Keys) -> None:
    signed = sign(b"content", keys.ours)
    check_signature(b"content", signed, keys.allowed)
    with pytest.raises(Refused) as error:
        check_signature(b"content.", signed, keys.allowed)
    assert error.value.reason == "changed-manifest"


def test_after_a_key_rotation_both_keys_count(keys: Keys, tmp_path: Path) -> None:
    both = tmp_path / "signers"
    new = allowed_signer(keys.foreign.with_suffix(".pub").read_text())
    both.write_text(keys.allowed.read_text() + new)
    for key in (keys.ours, keys.foreign):
        check_signature(b"content", sign(b"content", key), both)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match=r"signing key .*absent is not there"):
        sign(b"content", tmp_path / "absent")


def test_a_key_with_a_passphrase_fails_at_once(tmp_path: Path) -> None:
    key = tmp_path / "locked"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)], check=True
    )
    with pytest.raises(SigningError, match="failed"):
        sign(b"content", key)


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 AAAA a\nssh-ed25519 BBBB b\n"])
def test_only_one_public_key_makes_an_allowed_signer(text: str) -> None:
    with pytest.raises(ValueError, match="one public key"):
        allowed_signer(text)
