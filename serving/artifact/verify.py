#!/usr/bin/env python3
"""Refuse a package that is not, byte for byte, what the release identity signed.

This one file is complete: it needs python3's standard library and `ssh-keygen`, and runs as a
script on a serving host where nothing of Lockgate is installed:

    python3 verify.py DIR --allowed-signers FILE --model NAME --version 3 [--json]

The order is the argument: first the signature of `manifest.json` (nothing in it is believed
before), then its model and version, then every file on disk against the signed list. Each refusal
has a name and an exit code of its own (`EXIT_CODES`); 0 means verified, 2 is a usage error.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

NAMESPACE = "lockgate-release"
IDENTITY = "release@lockgate"
FORMAT = "lockgate-package/1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"

EXIT_CODES = {
    "no-package": 10,
    "unsigned": 11,
    "cannot-check": 12,
    "bad-signature": 13,
    "foreign-signature": 14,
    "wrong-namespace": 15,
    "changed-manifest": 16,
    "bad-manifest": 17,
    "unsafe-path": 18,
    "wrong-model": 19,
    "wrong-version": 20,
    "odd-file": 21,
    "missing-file": 22,
    "extra-file": 23,
    "changed-file": 24,
}

#: A manifest lists some tens of files; a signature is a few hundred bytes.
_MAX_MANIFEST = 16 << 20
_MAX_SIGNATURE = 4 << 10
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class Refused(ValueError):
    """The package is not to be used; `reason` is a key of EXIT_CODES, the text is one sentence."""

    def __init__(self, reason: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.path = path

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.reason]


@dataclass(frozen=True)
class Verified:
    """Verified content: this model and version, by the digest (sha256) of its manifest's bytes."""

    model: str
    version: int
    digest: str
    files: int
    bytes: int


def verify_package(
    directory: Path,
    allowed_signers: Path,
    model: str | None = None,
    version: int | None = None,
) -> Verified:
    """Check that `directory` is a signed package, untouched, and the one that is meant.

    `model` and `version` are compared with the manifest when given; a caller that wants one version
    gives them, or an older signed package could be put in a newer one's place.
    Raises Refused.
    """
    directory = Path(directory)
    if directory.is_symlink() or not directory.is_dir():
        raise Refused("no-package", f"{_shown(directory)} is not a folder")
    manifest = _read_plain(directory / MANIFEST, _MAX_MANIFEST, "unsigned")
    signature = _read_plain(directory / SIGNATURE, _MAX_SIGNATURE, "unsigned")
    check_signature(manifest, signature, allowed_signers)
    content = _parse(manifest)
    if model is not None and content["model"] != model:
        raise Refused("wrong-model", f"the package is {content['model']}, not {model}")
    if version is not None and content["version"] != version:
        wanted, found = f"{content['model']}/{version}", f"{content['model']}/{content['version']}"
        raise Refused("wrong-version", f"the package is {found}, not {wanted}")
    listed = {entry["path"]: entry for entry in content["files"]}
    _compare(directory, listed)
    return Verified(
        model=content["model"],
        version=content["version"],
        digest=hashlib.sha256(manifest).hexdigest(),
        files=len(listed),
        bytes=sum(entry["bytes"] for entry in listed.values()),
    )


def check_signature(data: bytes, signature: bytes, allowed_signers: Path) -> None:
    """Check with ssh-keygen that IDENTITY signed exactly `data` for NAMESPACE. Raises Refused.

    `signature` is passed through a pipe, never through a file that another process could swap
    between the two reads.
    """
    if not Path(allowed_signers).is_file():
        raise Refused("cannot-check", f"there is no list of allowed signers at {allowed_signers}")
    reading, writing = os.pipe()
    try:
        os.write(writing, signature)  # never blocks: a pipe holds at least 4 KiB
        os.close(writing)
        command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed_signers), "-I", IDENTITY]
        command += ["-n", NAMESPACE, "-s", f"/dev/fd/{reading}"]
        done = subprocess.run(
            command, input=data, capture_output=True, pass_fds=[reading], timeout=60
        )
    except FileNotFoundError:
        raise Refused(
            "cannot-check", "ssh-keygen is not installed: install openssh-client"
        ) from None
    except subprocess.TimeoutExpired:
        raise Refused("cannot-check", "ssh-keygen gave no answer within a minute") from None
    finally:
        os.close(reading)
    if done.returncode != 0:
        detail = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _why_not(signature, allowed_signers, detail[0] if detail else "no reason given")


def plain_files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Every file under `directory` as (posix path, path), sorted; only plain files may be there.

    Raises Refused("odd-file") for a symbolic or hard link (another name could change the file
    later), a device, a pipe, a socket, or an empty folder.
    """
    found = []
    for folder, names in _folders(Path(directory)):
        if not names:
            raise Refused("odd-file", f"{_shown(folder)} is an empty folder", _shown(folder))
        for name in names:
            path = folder / name
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            kind = _oddity(status)
            if kind:
                relative = path.relative_to(directory).as_posix()
                message = f"{_shown(relative)} is {kind}, not a plain file"
                raise Refused("odd-file", message, _shown(relative))
            found.append((path.relative_to(directory).as_posix(), path))
    yield from sorted(found)


def file_sha256(path: Path) -> str:
    """The sha256 of a plain file, in hex. Does not follow a link at `path`."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safe_path(path: object) -> bool:
    """True when `path` names a file inside a package, and can be nothing else on any host.

    Relative, no `.` or `..`, no hidden or option-like part, and only letters, digits and `_.+-`.
    """
    if not isinstance(path, str) or len(path) > 512:
        return False
    parts = path.split("/")
    return path not in (MANIFEST, SIGNATURE) and all(_SAFE_NAME.match(part) for part in parts)


def _read_plain(path: Path, limit: int, reason: str) -> bytes:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise Refused(reason, f"{path.name} is missing", path.name) from None
    kind = _oddity(status)
    if kind:
        raise Refused("odd-file", f"{path.name} is {kind}, not a plain file", path.name)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refused("bad-manifest", f"{path.name} is larger than {limit} bytes", path.name)
    return data


def _oddity(status: os.stat_result) -> str:
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if not stat.S_ISREG(mode):
        return "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
    return "a hard link" if status.st_nlink != 1 else ""


def _folders(directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the names in it; a link to a folder is a name, never entered."""
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    yield directory, [entry.name for entry in found]
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _folders(directory / entry.name)


def _parse(manifest: bytes) -> dict:
    """The parts of a signed manifest that files are checked against. Raises Refused."""
    try:
        content = json.loads(manifest.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refused("bad-manifest", f"{MANIFEST} is not JSON: {error}", MANIFEST) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        message = f"{MANIFEST} has format {found!r}; this verifier reads {FORMAT!r}"
        raise Refused("bad-manifest", message, MANIFEST)
    model, version, files = (content.get(key) for key in ("model", "version", "files"))
    if not isinstance(model, str) or not _SAFE_NAME.match(model):
        raise Refused("bad-manifest", f"{MANIFEST} names no valid model: {model!r}", MANIFEST)
    if type(version) is not int or version < 1:
        raise Refused("bad-manifest", f"{MANIFEST} names no valid version: {version!r}", MANIFEST)
    if not isinstance(files, list) or not files:
        raise Refused("bad-manifest", f"{MANIFEST} lists no files", MANIFEST)
    seen = set()
    for entry in files:
        _check_entry(entry)
        if entry["path"] in seen:
            raise Refused("bad-manifest", f"{MANIFEST} lists {entry['path']} twice", MANIFEST)
        seen.add(entry["path"])
    return content


def _check_entry(entry: object) -> None:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise Refused("bad-manifest", f"{MANIFEST} lists a file without a path", MANIFEST)
    path = entry["path"]
    if not safe_path(path):
        raise Refused("unsafe-path", f"{MANIFEST} lists the unsafe path {path!r}", path)
    size, digest = entry.get("bytes"), entry.get("sha256")
    if type(size) is not int or size < 0:
        raise Refused("bad-manifest", f"{MANIFEST} gives no size for {path}", MANIFEST)
    if not isinstance(digest, str) or not _HEX_DIGEST.match(digest):
        raise Refused("bad-manifest", f"{MANIFEST} gives no sha256 for {path}", MANIFEST)


def _once(pairs: list[tuple[str, object]]) -> dict:
    """A JSON object whose keys are there once: two readers must not see two different manifests."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return content


def _compare(directory: Path, listed: dict) -> None:
    present = {
        name: path for name, path in plain_files(directory) if name not in (MANIFEST, SIGNATURE)
    }
    for name in sorted(listed):
        if name not in present:
            raise Refused("missing-file", f"{name} is in the manifest and not on disk", name)
    for name in sorted(present):
        if name not in listed:
            shown = _shown(name)
            raise Refused("extra-file", f"{shown} is on disk and not in the manifest", shown)
    for name, entry in sorted(listed.items()):
        size = present[name].lstat().st_size
        if size != entry["bytes"]:
            message = f"{name} has {size} bytes, the manifest has {entry['bytes']}"
            raise Refused("changed-file", message, name)
        if file_sha256(present[name]) != entry["sha256"]:
            raise Refused("changed-file", f"{name} has another sha256 than the manifest", name)


def _why_not(signature: bytes, allowed_signers: Path, detail: str) -> Refused:
    """Name what is wrong with a signature that ssh-keygen has refused.

    Only explains: the verdict is ssh-keygen's. Reads the public parts of the SSHSIG blob (OpenSSH
    PROTOCOL.sshsig): the key that signed and the namespace it signed for.
    """
    try:
        key, namespace = _sshsig(signature)
    except (ValueError, struct.error, binascii.Error):
        return Refused("bad-signature", f"{SIGNATURE} is not an SSH signature ({detail})")
    if namespace != NAMESPACE.encode():
        shown = ascii(namespace.decode("utf-8", "replace"))
        return Refused("wrong-namespace", f"signed for {shown}, not for {NAMESPACE!r}")
    known = Path(allowed_signers).read_text("utf-8", "replace").split()
    if base64.b64encode(key).decode() not in known:
        fingerprint = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
        return Refused(
            "foreign-signature",
            f"signed by the key SHA256:{fingerprint}, which is not an allowed signer",
        )
    return Refused("changed-manifest", f"the signature does not fit {MANIFEST} ({detail})")


def _sshsig(armored: bytes) -> tuple[bytes, bytes]:
    lines = armored.decode("ascii").split("\n")
    blob = base64.b64decode("".join(line for line in lines if "SSH SIGNATURE" not in line))
    if blob[:6] != b"SSHSIG":
        raise ValueError("no SSHSIG preamble")
    fields, at = [], 10  # the preamble, then a version number
    for _ in range(2):
        (length,) = struct.unpack_from(">I", blob, at)
        fields.append(blob[at + 4 : at + 4 + length])
        at += 4 + length
    return fields[0], fields[1]


def _shown(name: object) -> str:
    """A file name from disk for a terminal: control characters and odd bytes escaped."""
    return ascii(str(name))[1:-1]


def main(argv: list[str] | None = None) -> int:
    """Verify one folder; print one line (or one JSON object) and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--allowed-signers", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", required=True, type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    try:
        found = verify_package(
            options.directory, options.allowed_signers, options.model, options.version
        )
    except Refused as error:
        result = {"ok": False, "refused": error.reason, "path": error.path, "detail": str(error)}
        line, code = f"REFUSED {error.reason}: {error}", error.exit_code
    except OSError as error:
        detail = f"{_shown(error.filename or options.directory)}: {error.strerror}"
        result = {"ok": False, "refused": "cannot-check", "path": "", "detail": detail}
        line, code = f"REFUSED cannot-check: {detail}", EXIT_CODES["cannot-check"]
    else:
        result = {"ok": True, **asdict(found)}
        line, code = f"VERIFIED {found.model}/{found.version} sha256:{found.digest}", 0
    print(json.dumps(result) if options.json else line)
    return code


if __name__ == "__main__":
    sys.exit(main())
