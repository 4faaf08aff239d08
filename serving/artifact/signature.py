"""Signatures of a manifest's bytes by ssh-keygen; `verify` checks them.

A signature is for one namespace and one identity, so that a key that also signs commits or logs
in somewhere cannot be tricked into having signed a release.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from conf.errors import LockgateError
from serving.artifact.verify import (
    APPROVER,
    IDENTITY,
    NAMESPACE,
    RELEASE,
    Refused,
    SignatureRole,
    check_signature,
)

__all__ = [
    "APPROVER",
    "IDENTITY",
    "NAMESPACE",
    "RELEASE",
    "Refused",
    "SignatureRole",
    "SigningError",
    "allowed_signer",
    "check_signature",
    "sign",
]


class SigningError(LockgateError, RuntimeError):
    """The bytes could not be signed; the message has the key and the reason."""


def sign(data: bytes, key: Path, role: SignatureRole = RELEASE) -> bytes:
    """The armored signature of `data`, as `role`. Raises SigningError.

    `key` is a private key without passphrase, or the public half of one that an agent holds. There
    is no terminal to ask for a passphrase on: a release never waits for one.
    """
    if not Path(key).exists():
        raise SigningError(f"the signing key {key} is not there, or not readable by this user")
    command = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", role.namespace]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=60, start_new_session=True
        )
    except FileNotFoundError:
        raise SigningError("ssh-keygen is not installed: install openssh-client") from None
    except subprocess.TimeoutExpired:
        raise SigningError(f"signing with {key} took more than a minute and was given up") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SigningError(f"signing with {key} failed: {lines[-1] if lines else 'no reason'}")
    return done.stdout


def allowed_signer(public_key: str, role: SignatureRole = RELEASE) -> str:
    """The line of an `allowed_signers` file that lets `public_key` (a .pub's text) sign as `role`.

    Raises ValueError for anything that is not one public key.
    """
    words = public_key.split()
    if len(words) < 2 or "\n" in public_key.strip():
        raise ValueError("expected one public key, as in a .pub file: TYPE BASE64 [COMMENT]")
    return f'{role.identity} namespaces="{role.namespace}" {words[0]} {words[1]}\n'
