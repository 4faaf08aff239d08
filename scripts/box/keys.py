"""The keys of the site: made once, kept, pinned from the files, never learned over a network."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from scripts.box.files import ensure_owner, write_atomically


def ensure_ed25519(path: Path, owner: str, comment: str) -> str:
    """Make the key pair at `path` unless it is there; returns the public key's line.

    A key of an older site becomes its owner's of today. The public half is put in place first:
    whoever sees the private key finds both.
    """
    public = path.with_name(path.name + ".pub")
    if not path.exists():
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(new)],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        made = new.with_name(new.name + ".pub")
        write_atomically(public, made.read_bytes(), "root", "root", 0o644)
        made.unlink()
        write_atomically(path, new.read_bytes(), owner, "root", 0o600)
        new.unlink()
    ensure_owner(path, owner, "root", 0o600)
    return public.read_text()


def ensure_secret(path: Path, owner: str, bytes_: int, text: bool) -> bytes:
    """A random secret in a file that `owner` alone can read; made once."""
    if not path.exists():
        value = secrets.token_hex(bytes_).encode() if text else secrets.token_bytes(bytes_)
        write_atomically(path, value, owner, "root", 0o400)
    return path.read_bytes()
