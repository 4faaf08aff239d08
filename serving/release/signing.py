"""The release's side of signing: a manifest's bytes go to the signer, which alone reads the key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conf.errors import REFUSED
from serving.artifact.signature import SigningError
from serving.os_user import ENVIRONMENT, as_user, refuse_own_user
from serving.release.signer import SignatureRefused, sign_manifest

_SOURCE = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 90.0


def signer_command(key: Path, record: Path) -> list[str]:
    """The signer's command line, word for word as sudo's rule allows it and nothing else."""
    python = Path(sys.prefix).resolve() / "bin" / "python"
    return [
        *("/usr/bin/env", "-i", "PATH=/usr/bin:/bin", f"PYTHONPATH={_SOURCE}"),
        *(str(python), "-P", "-B", "-m", "serving.release.signer", str(key), str(record)),
    ]


def sign_as_user(data: bytes, user: str, key: Path, record: Path) -> bytes:
    """The signature of a manifest's bytes by the signer, run as `user`.

    With `user` empty the key is this process's own, and so is the signer: for a site of one user.
    Raises SignatureRefused, SigningError, OsUserError.
    """
    if not user:
        return sign_manifest(data, key, record)
    refuse_own_user(user, "sign_as", "owns the key, which the release must not read")
    done = subprocess.run(
        [*as_user(user), *signer_command(key, record)],
        input=data, capture_output=True, env=ENVIRONMENT, cwd="/", timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"exit code {done.returncode}"
        kind = SignatureRefused if done.returncode == REFUSED else SigningError
        raise kind(f"the signer, run as {user}, did not sign: {reason}")
    return done.stdout
