"""Digests: one name for the bytes of a file or of a folder, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from serving.artifact.verify import file_sha256, plain_files

__all__ = [
    "LINEAGE_FILE",
    "bytes_sha256",
    "canonical_json",
    "file_sha256",
    "pairs_digest",
    "short",
    "tree_digest",
]

LINEAGE_FILE = "lineage.json"
"""The file of a dataset that holds the digest of the others."""


def bytes_sha256(data: bytes) -> str:
    """The sha256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()


def tree_digest(directory: Path, exclude: Iterable[str] = (LINEAGE_FILE,)) -> str:
    """The digest of a folder's content: file names and bytes, not times, owners or modes.

    `exclude` are posix paths relative to `directory` that do not count. Raises
    `serving.artifact.verify.Refused` for anything but plain files, FileNotFoundError for no folder.
    """
    left_out = set(exclude)
    files = plain_files(Path(directory))
    return pairs_digest((name, file_sha256(path)) for name, path in files if name not in left_out)


def pairs_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """One digest of (path, sha256) pairs, whatever their order."""
    lines = sorted(f"{sha256}  {path}\n" for path, sha256 in pairs)
    return bytes_sha256("".join(lines).encode("utf-8", "surrogateescape"))


def canonical_json(value: object) -> bytes:
    """The one spelling of `value` as JSON: sorted keys, two spaces, UTF-8, a final newline.

    Raises ValueError for NaN and infinities, which are not JSON.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def short(digest: str) -> str:
    """The first twelve hex digits: enough for a folder's name and for people."""
    return digest[:12]
