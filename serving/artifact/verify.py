#!/usr/bin/env python3
"""Refuse a package that is not, byte for byte, what the release identity signed.

This one file is complete: it needs python3's standard library and `ssh-keygen`, and runs as a
script on a serving host where nothing of Lockgate is installed:

    python3 verify.py DIR --allowed-signers FILE --model NAME --version 3 [--json]

The order is the argument: first the signature of `manifest.json` (nothing in it is believed
before), then whether key or manifest was revoked, then its model, version and expiry, then every
file on disk against the signed list. Each refusal has a name and an exit code of its own
(`EXIT_CODES`); 0 means verified, 2 is a usage error.

`--revoked FILE` names what no longer counts, one a line, with the reason behind it:

    sha256:<64 hex digits of a manifest> <reason>
    SHA256:<fingerprint of a key, as ssh-keygen -l prints it> <reason>
    ssh-ed25519 AAAA... <reason>

Empty lines and lines that begin with `#` mean nothing; any other line refuses every package until
it is mended. A missing file refuses too.
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
from datetime import datetime, timezone
from pathlib import Path

NAMESPACE = "lockgate-release"
IDENTITY = "release@lockgate"
APPROVAL_NAMESPACE = "lockgate-approval"
APPROVAL_IDENTITY = "approver@lockgate"
FORMAT = "lockgate-package/2"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
APPROVAL = "manifest.json.approval.sig"
BESIDE = (MANIFEST, SIGNATURE, APPROVAL)
"""Files of a package that its manifest does not list: itself and its signatures."""

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
    "expired": 25,
    "expired-key": 26,
    "not-yet-valid-key": 27,
    "revoked": 28,
    "unapproved": 29,
}

ONE_KEY = "release and approval are signed by one key: an approver has a key of its own"
_MAX_MANIFEST = 16 << 20  # it lists some tens of files
MAX_SIGNATURE = 4 << 10
"""Bytes of a signature's file at most; one has a few hundred, and a pipe holds so many at least."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]\Z")
_KEY_TYPE = re.compile(r"(ssh|ecdsa|sk)-[a-z0-9@.-]+\Z")
_ARMOR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n-----END SSH SIGNATURE-----\n?\Z"
)
_BLANKS = re.compile(r"[ \t]+")
_UTC = timezone.utc  # noqa: UP017  a host's python3 may be older than datetime.UTC
_TIME = "%Y-%m-%dT%H:%M:%SZ"


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
    """Verified content: this model and version, by the digest (sha256) of its manifest's bytes.

    `expires` is the time (ISO 8601, UTC) from which a host no longer accepts it.
    """

    model: str
    version: int
    digest: str
    files: int
    bytes: int
    expires: str


@dataclass(frozen=True)
class SignedListing:
    """The checked content of a signed manifest; `files` are its entries (sha256, bytes) by path."""

    model: str
    version: int
    digest: str
    expires: str
    files: dict[str, dict]


@dataclass(frozen=True)
class SignatureRole:
    """One kind of signature: its identity in allowed_signers, its namespace, its file's name."""

    identity: str
    namespace: str
    file: str


RELEASE = SignatureRole(IDENTITY, NAMESPACE, SIGNATURE)
APPROVER = SignatureRole(APPROVAL_IDENTITY, APPROVAL_NAMESPACE, APPROVAL)


@dataclass(frozen=True)
class Revocations:
    """A revocation list: the words behind each revoked manifest's digest (hex) and each revoked
    key's fingerprint (`SHA256:...`)."""

    manifests: dict[str, str]
    keys: dict[str, str]

    def check_key(self, key: bytes) -> None:
        """Raises Refused("revoked") when the public key blob `key` is on the list."""
        name = _fingerprint(key)
        if name in self.keys:
            raise Refused("revoked", f"the key {name} is revoked{_because(self.keys[name])}")

    def check_manifest(self, digest: str) -> None:
        """Raises Refused("revoked") when the manifest with this sha256 is on the list."""
        if digest in self.manifests:
            why = _because(self.manifests[digest])
            raise Refused("revoked", f"the manifest sha256:{digest} is revoked{why}", MANIFEST)


def verify_package(
    directory: Path,
    allowed_signers: Path,
    model: str | None = None,
    version: int | None = None,
    *,
    revoked: Path | None = None,
    accept_expired: bool = False,
    approvals: int = 0,
) -> Verified:
    """Check that `directory` is a signed package, untouched, and the one that is meant.

    `model` and `version` are compared with the manifest when given; a caller that wants one version
    gives them, or an older signed package could be put in a newer one's place. `revoked` is the
    revocation list. `accept_expired` is for a package that was accepted before and serves: neither
    its expiry nor its key's since then counts, a revocation always does. `approvals` is 0, or 1 for
    a package that needs an approver's signature beside the release's. Raises Refused.
    """
    listing = signed_listing(
        directory,
        allowed_signers,
        model,
        version,
        revoked=revoked,
        accept_expired=accept_expired,
        approvals=approvals,
    )
    _compare(Path(directory), listing.files)
    return Verified(
        model=listing.model,
        version=listing.version,
        digest=listing.digest,
        files=len(listing.files),
        bytes=sum(entry["bytes"] for entry in listing.files.values()),
        expires=listing.expires,
    )


def signed_listing(
    directory: Path,
    allowed_signers: Path,
    model: str | None = None,
    version: int | None = None,
    *,
    revoked: Path | None = None,
    accept_expired: bool = False,
    approvals: int = 0,
) -> SignedListing:
    """The files that the signed manifest in `directory` lists, of which none is looked at here.

    Everything else is checked as `verify_package` checks it. Raises Refused.
    """
    directory = Path(directory)
    if directory.is_symlink() or not directory.is_dir():
        raise Refused("no-package", f"{_shown(directory)} is not a folder")
    listed_as_revoked = read_revocations(revoked) if revoked else Revocations({}, {})
    manifest = _read_plain(directory / MANIFEST, _MAX_MANIFEST, "unsigned")
    signature = _read_plain(directory / SIGNATURE, MAX_SIGNATURE, "unsigned")
    key = _check_either_time(manifest, signature, allowed_signers, RELEASE, accept_expired)
    digest = hashlib.sha256(manifest).hexdigest()
    listed_as_revoked.check_key(key)
    listed_as_revoked.check_manifest(digest)
    if approvals:
        approval = _read_plain(directory / APPROVAL, MAX_SIGNATURE, "unapproved")
        by = _check_either_time(manifest, approval, allowed_signers, APPROVER, accept_expired)
        listed_as_revoked.check_key(by)
        if by == key:
            raise Refused("unapproved", ONE_KEY, APPROVAL)
    content = _parse(manifest)
    if model is not None and content["model"] != model:
        raise Refused("wrong-model", f"the package is {content['model']}, not {model}")
    if version is not None and content["version"] != version:
        wanted, found = f"{content['model']}/{version}", f"{content['model']}/{content['version']}"
        raise Refused("wrong-version", f"the package is {found}, not {wanted}")
    if not accept_expired and parse_time(content["expires"]) <= datetime.now(_UTC):
        name = f"{content['model']}/{content['version']}"
        message = f"{name} expired at {content['expires']}: release its run again"
        raise Refused("expired", message, MANIFEST)
    return SignedListing(
        model=content["model"],
        version=content["version"],
        digest=digest,
        expires=content["expires"],
        files={entry["path"]: entry for entry in content["files"]},
    )


def check_signature(
    data: bytes,
    signature: bytes,
    allowed_signers: Path,
    role: SignatureRole = RELEASE,
    at: datetime | None = None,
) -> bytes:
    """Check with ssh-keygen that `role` signed exactly `data`; returns the key's public blob.

    A key's valid-after and valid-before in the list are compared with `at`, by default now.
    `signature` is passed through a pipe, never through a file that another process could swap
    between the two reads. Raises Refused.
    """
    try:
        if len(signature) > MAX_SIGNATURE:
            raise ValueError(f"it is larger than {MAX_SIGNATURE} bytes")
        key, namespace = _sshsig(signature)
    except (ValueError, struct.error) as error:
        raise Refused("bad-signature", f"{role.file} is not an SSH signature: {error}") from None
    if not Path(allowed_signers).is_file():
        raise Refused("cannot-check", f"there is no list of allowed signers at {allowed_signers}")
    reading, writing = os.pipe()
    try:
        os.write(writing, signature)  # never blocks: a pipe holds at least 4 KiB
        os.close(writing)
        command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed_signers), "-I", role.identity]
        command += ["-n", role.namespace, "-s", f"/dev/fd/{reading}"]
        command += [f"-Overify-time={at:%Y%m%d%H%M%SZ}"] if at else []
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
        said = done.stderr.decode("utf-8", "replace")
        raise _why_not(key, namespace, allowed_signers, role, said)
    return key


def read_revocations(path: Path) -> Revocations:
    """The revocation list in `path`; see this module's head for its lines.

    Raises Refused("cannot-check") for a file or a line that cannot be understood: a list of which
    a part is skipped would let through what somebody meant to stop.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"the revocation list {_shown(path)} cannot be read: {_shown(error)}"
        raise Refused("cannot-check", message) from None
    found = Revocations({}, {})
    for number, line in enumerate(text.split("\n"), 1):
        words = _BLANKS.split(line.strip(" \t\r"))
        if not words[0] or words[0].startswith("#"):
            continue
        name, _, hexes = words[0].partition(":")
        if name == "sha256" and _HEX_DIGEST.match(hexes):
            found.manifests[hexes] = " ".join(words[1:])
        elif _FINGERPRINT.match(words[0]):
            found.keys[words[0]] = " ".join(words[1:])
        elif key := _public_key(words):
            found.keys[_fingerprint(key)] = " ".join(words[2:])
        else:
            message = (
                f"line {number} of the revocation list {_shown(path)} is none of sha256:DIGEST, "
                f"SHA256:FINGERPRINT and a public key: {_shown(line[:80])}"
            )
            raise Refused("cannot-check", message)
    return found


def format_time(moment: datetime) -> str:
    """`moment`, which is in UTC, as manifests spell it: 2026-01-31T23:59:59Z."""
    return moment.strftime(_TIME)


def parse_time(text: object) -> datetime:
    """The time in a manifest, as in 2026-01-31T23:59:59Z. Raises ValueError for any other form."""
    found = datetime.strptime(str(text), _TIME).replace(tzinfo=_UTC)
    if format_time(found) != text:
        raise ValueError(f"{text!r} is not a time as in 2026-01-31T23:59:59Z")
    return found


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
    return path not in BESIDE and all(_SAFE_NAME.match(part) for part in parts)


def _check_either_time(
    manifest: bytes, signature: bytes, allowed_signers: Path, role: SignatureRole, past: bool
) -> bytes:
    """Check the signature now; with `past`, a key that has expired since the manifest was made
    counts too. The time in the manifest is then checked by the signature that it is used for."""
    try:
        return check_signature(manifest, signature, allowed_signers, role)
    except Refused as error:
        if not past or error.reason != "expired-key":
            raise
        made = parse_time(_parse(manifest)["created"])
        return check_signature(manifest, signature, allowed_signers, role, made)


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
        if found == "lockgate-package/1":
            message += ": it is of an earlier Lockgate, release its run again"
        raise Refused("bad-manifest", message, MANIFEST)
    model, version, files = (content.get(key) for key in ("model", "version", "files"))
    if not isinstance(model, str) or not _SAFE_NAME.match(model):
        raise Refused("bad-manifest", f"{MANIFEST} names no valid model: {model!r}", MANIFEST)
    if type(version) is not int or version < 1:
        raise Refused("bad-manifest", f"{MANIFEST} names no valid version: {version!r}", MANIFEST)
    try:
        lasts = parse_time(content.get("created")) < parse_time(content.get("expires"))
    except ValueError as error:
        raise Refused("bad-manifest", f"{MANIFEST}: {error}", MANIFEST) from None
    if not lasts:
        raise Refused("bad-manifest", f"{MANIFEST} expires before it was created", MANIFEST)
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
    present = {name: path for name, path in plain_files(directory) if name not in BESIDE}
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


def _why_not(
    key: bytes, namespace: bytes, allowed_signers: Path, role: SignatureRole, said: str
) -> Refused:
    """The refusal for a signature by `key` that ssh-keygen has refused with the words `said`.

    Only explains: the verdict is ssh-keygen's, which compares the bytes before it looks the key up:
    a key that it calls expired did sign these bytes.
    """
    detail = _shown((said.strip().splitlines() or ["no reason given"])[0])
    if namespace != role.namespace.encode():
        shown = ascii(namespace.decode("utf-8", "replace"))
        return Refused("wrong-namespace", f"signed for {shown}, not for {role.namespace!r}")
    name = _fingerprint(key)
    try:
        known = Path(allowed_signers).read_text("utf-8", "replace").split()
    except OSError as error:
        return Refused("cannot-check", f"{_shown(allowed_signers)}: {error.strerror}")
    if base64.b64encode(key).decode() not in known:
        return Refused(
            "foreign-signature", f"{role.file} is by the key {name}, which is not an allowed signer"
        )
    for words, reason, message in (
        ("incorrect signature", "changed-manifest", f"{role.file} does not fit {MANIFEST}"),
        ("bad options", "cannot-check", "the list of allowed signers has a line that is wrong"),
        ("key has expired", "expired-key", f"the key {name} has expired"),
        ("key is not yet valid", "not-yet-valid-key", f"the key {name} is not yet valid"),
        ("Signature verification failed", "bad-signature", f"{role.file} is not a signature"),
        ("Couldn't", "bad-signature", f"{role.file} is not a signature"),
    ):
        if words in said:
            return Refused(reason, f"{message} ({detail})")
    if said.strip() and "not permitted" not in said:
        return Refused("cannot-check", f"ssh-keygen could not check {role.file} ({detail})")
    message = f"{role.file} is by the key {name}, which may not sign as {role.identity}"
    return Refused("foreign-signature", message)


def _fingerprint(key: bytes) -> str:
    """The name of a public key blob, as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def _public_key(words: list[str]) -> bytes | None:
    """The blob of a public key line, `TYPE BASE64 ...`; None for anything else."""
    if len(words) < 2 or not _KEY_TYPE.match(words[0]):
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
        kind, *parts = _strings(blob)
    except (binascii.Error, struct.error):
        return None
    return blob if kind == words[0].encode() and parts and all(parts) else None


def _strings(blob: bytes) -> list[bytes]:
    """The length-prefixed strings (RFC 4251, section 5) of `blob`, which is nothing but these.

    Raises struct.error.
    """
    found, at = [], 0
    while at < len(blob):
        (length,) = struct.unpack_from(">I", blob, at)
        at += 4 + length
        found.append(blob[at - length : at])
    if at != len(blob) or not found:
        raise struct.error("the blob ends within a string")
    return found


def _because(words: str) -> str:
    return f": {_shown(words)}" if words else ""


def _sshsig(armored: bytes) -> tuple[bytes, bytes]:
    """Public key and namespace of an SSHSIG blob (OpenSSH PROTOCOL.sshsig).

    Strict, so that this reader and ssh-keygen, which allows more, see one and the same key. Raises
    ValueError or struct.error.
    """
    found = _ARMOR.match(armored)
    if not found:
        raise ValueError("it is not one armored block")
    blob = base64.b64decode(found.group(1).replace(b"\n", b""), validate=True)
    if blob[:10] != b"SSHSIG\0\0\0\1":
        raise ValueError("it has no SSHSIG preamble of version 1")
    fields = _strings(blob[10:])  # public key, namespace, reserved, hash algorithm, signature
    if len(fields) != 5 or fields[2]:
        raise ValueError("it has more or less in it than a signature")
    key, namespace = fields[:2]
    if b"-cert-v" in key[:64]:  # in the name of its type
        raise ValueError("it is by a certificate, whose key no revocation could name")
    return key, namespace


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
    parser.add_argument("--revoked", type=Path, metavar="FILE", help="what no longer counts")
    parser.add_argument(
        "--accept-expired",
        action="store_true",
        help="for a package that serves already: its expiry and its key's do not count",
    )
    parser.add_argument(
        "--approvals",
        type=int,
        choices=(0, 1),
        default=0,
        help="approver's signatures needed beside the release's",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    try:
        found = verify_package(
            options.directory,
            options.allowed_signers,
            options.model,
            options.version,
            revoked=options.revoked,
            accept_expired=options.accept_expired,
            approvals=options.approvals,
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
