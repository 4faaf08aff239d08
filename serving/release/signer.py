"""The signer: a manifest's bytes on stdin, their signature on stdout.

    python -m serving.release.signer KEY RECORD <manifest.json >manifest.json.sig

It runs as the user that owns KEY, and sees nothing else of a release: no package, no store. It
signs what it has understood to be a manifest with every required gate passed, and one content per
version: RECORD is a folder of its own, in which `<model>/<version>` holds the digest of the files
that were signed as that version. A release that was killed may have the same files signed again.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf.errors import DONE, REFUSED, LockgateError
from serving.artifact.digest import pairs_digest
from serving.artifact.durable import replace_file
from serving.artifact.manifest import Manifest, parse_manifest
from serving.artifact.signature import SigningError, sign
from serving.artifact.verify import safe_path

#: A manifest has one line per file and gate: some tens of kB.
MAX_MANIFEST_BYTES = 4 << 20


class SignatureRefused(SigningError):
    """The signer does not sign these bytes; the message has the reason."""

    exit_code = REFUSED


def main(argv: Sequence[str]) -> int:
    """Sign stdin with the key and the record of `argv`; the exit status is `conf.errors`'."""
    key, record = argv
    try:
        data = sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
        sys.stdout.buffer.write(sign_manifest(data, Path(key), Path(record)))
    except LockgateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return DONE


def sign_manifest(data: bytes, key: Path, record: Path) -> bytes:
    """The signature of a manifest's bytes, or of nothing: a check that the key is one that counts.

    Raises SignatureRefused, ManifestError, SigningError.
    """
    if not data:
        return sign(data, key)
    if len(data) > MAX_MANIFEST_BYTES:
        raise SignatureRefused(f"a manifest is at most {MAX_MANIFEST_BYTES} bytes")
    manifest = parse_manifest(data, "the manifest to sign")
    _refuse_gates(manifest)
    if not safe_path(manifest.model) or "/" in manifest.model:
        raise SignatureRefused(f"model is {manifest.model!r}, which cannot name a folder")
    with _locked(record):
        _record(manifest, record)
    return sign(data, key)


def _refuse_gates(manifest: Manifest) -> None:
    required = [gate for gate in manifest.gates if gate.required]
    failed = [gate.name for gate in required if gate.verdict != "pass"]
    if failed or not required:
        reason = f"gates that did not pass: {', '.join(failed[:3])}" if failed else "no gate at all"
        raise SignatureRefused(f"{manifest.model}/{manifest.version} has {reason}")


def _record(manifest: Manifest, record: Path) -> None:
    """Write down what is signed as this version; refuse other files than those of before."""
    digest = pairs_digest((entry.path, entry.sha256) for entry in manifest.files)
    path = record / manifest.model / str(manifest.version)
    if path.exists():
        if path.read_text().strip() != digest:
            raise SignatureRefused(
                f"{manifest.model}/{manifest.version} was signed before with other files (see "
                f"{path}). A version is signed once: delete that number in the registry, and the "
                "next release gets a new one"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, digest + "\n")


@contextmanager
def _locked(record: Path) -> Iterator[None]:
    record.mkdir(parents=True, exist_ok=True)
    with (record / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
