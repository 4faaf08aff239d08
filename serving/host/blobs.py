"""Files of a package from one host to another, by what they contain, over SSH.

The host that has the package answers lines on its standard input; the one that wants it sends them:

    blob SHA256 OFFSET       the rest of an offered file, or of a manifest
    signature SHA256         the release's signature of the manifest with this sha256
    approval SHA256          an approver's

Each answer is a line with a number of bytes, or `none`, and then the bytes. The reader knows from
the signed manifest which files there are and how long each is, so a neighbour chooses neither names
nor sizes, only bytes, and those are verified before anything uses them. That is why this is no
rsync: its receiver believes the sender's list of files. And it is SSH and no HTTP with a token: a
port that is open anyhow, both ends known by pinned keys, a model never in clear text on the
network, and no server to be left behind by a controller that was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from serving.artifact.verify import APPROVAL, MANIFEST, MAX_SIGNATURE, SIGNATURE, file_sha256
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.host.offers import read_offers
from serving.host.peers import Peer

_BLOCK = 1 << 20
_MAX_LINE = 128
_MAX_MANIFEST = 16 << 20
_CONNECT_S = 10


def answer_blobs(home: HostHome, peer: str, lines: IO[bytes], answers: IO[bytes]) -> None:
    """Answer the lines of the host called `peer` until it closes."""
    files = _offered_files(home, peer)
    while line := lines.readline(_MAX_LINE):
        verb, _, rest = line.decode("ascii", "replace").strip().partition(" ")
        name, _, offset = rest.partition(" ")
        path = files.get((verb, name))
        start = int(offset) if offset.isdigit() and len(offset) < 16 else 0
        if path is None or not path.is_file() or start > path.stat().st_size:
            answers.write(b"none\n")
        else:
            _send(path, start, answers)
        answers.flush()


def _offered_files(home: HostHome, peer: str) -> dict[tuple[str, str], Path]:
    found: dict[tuple[str, str], Path] = {}
    for name in read_offers(home).get(peer, {}):
        model, _, version = name.partition("/")
        folder = home.package(model, int(version))
        try:
            digest = file_sha256(folder / MANIFEST)
            listed = json.loads((folder / MANIFEST).read_bytes())["files"]
        except OSError:
            continue  # pruned since it was offered
        found[("blob", digest)] = folder / MANIFEST
        found[("signature", digest)] = folder / SIGNATURE
        found[("approval", digest)] = folder / APPROVAL
        found.update({("blob", entry["sha256"]): folder / entry["path"] for entry in listed})
    return found


def _send(path: Path, start: int, answers: IO[bytes]) -> None:
    with path.open("rb") as content:
        size = os.fstat(content.fileno()).st_size
        answers.write(b"%d\n" % (size - start))
        answers.flush()
        while start < size:
            # From the file to the connection inside the kernel: this host serves models meanwhile.
            start += os.sendfile(
                answers.fileno(), content.fileno(), start, min(_BLOCK, size - start)
            )


class BlobStream:
    """An open connection to a peer's `blobs`. Raises HostRefusal("peer") for whatever it lacks.

    Not more than `limit_kib_s` KiB come in a second; 0 is no limit.
    """

    def __init__(self, process: subprocess.Popen[bytes], peer: Peer, limit_kib_s: int) -> None:
        assert process.stdout is not None
        self._process, self._peer, self._limit = process, peer, limit_kib_s
        self._pipe = process.stdout.fileno()
        self._began = time.monotonic()
        self.received = 0

    def manifest(self, digest: str) -> bytes:
        """The manifest with this sha256."""
        content = self._small(f"blob {digest} 0", _MAX_MANIFEST)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            raise self._fault("it gave another manifest than the one that was offered")
        return content

    def signature(self, digest: str) -> bytes | None:
        """The release's signature of that manifest."""
        return self._small(f"signature {digest}", MAX_SIGNATURE)

    def approval(self, digest: str) -> bytes | None:
        """An approver's signature of that manifest, None where it has none."""
        return self._small(f"approval {digest}", MAX_SIGNATURE)

    def append(self, sha256: str, path: Path, size: int) -> None:
        """Complete the file at `path`, which may have its first bytes already, to `size` bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            have = os.lseek(handle, 0, os.SEEK_END)
            if have > size:
                os.ftruncate(handle, 0)
                have = os.lseek(handle, 0, os.SEEK_SET)
            if self._request(f"blob {sha256} {have}") != size - have:
                raise self._fault(f"it has not the {size - have} bytes that are missing here")
            self._take(size - have, lambda most: os.splice(self._pipe, handle, most))
        finally:
            os.close(handle)

    def _small(self, line: str, most: int) -> bytes | None:
        size = self._request(line)
        if size is None:
            return None
        if size > most:
            raise self._fault(f"it answered {line.split()[0]} with {size} bytes")
        blocks: list[bytes] = []

        def read(most: int) -> int:
            blocks.append(os.read(self._pipe, most))
            return len(blocks[-1])

        self._take(size, read)
        return b"".join(blocks)

    def _request(self, line: str) -> int | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode("ascii"))
        except BrokenPipeError:
            raise self._fault(self._last_words()) from None
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < _MAX_LINE:
            letter = os.read(self._pipe, 1)
            if not letter:
                raise self._fault(self._last_words())
            answer += letter
        if answer == b"none\n":
            return None
        if not answer.strip().isdigit():
            raise self._fault("its answer is no number of bytes")
        return int(answer)

    def _take(self, size: int, move: Callable[[int], int]) -> None:
        """Have `move(most)`, which returns how many it took, take `size` bytes from the pipe."""
        while size:
            moved = move(min(_BLOCK, size))
            if not moved:
                raise self._fault(self._last_words())
            size -= moved
            self.received += moved
            if self._limit:
                due = self._began + self.received / (self._limit << 10)
                time.sleep(max(0.0, due - time.monotonic()))

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        self._process.kill()
        lines = self._process.stderr.read(4096).decode("utf-8", "replace").strip().splitlines()
        return ascii(lines[-1])[1:-1] if lines else "the connection ended"

    def _fault(self, detail: str) -> HostRefusal:
        return HostRefusal("peer", f"the host at {self._peer.address}: {detail}")


@contextmanager
def connected(home: HostHome, peer: Peer, limit_kib_s: int) -> Iterator[BlobStream]:
    """A stream from `peer`, where this host's key must have been offered something."""
    with tempfile.NamedTemporaryFile("w", dir=home.state, prefix=".peer-") as known:
        known.write(f"peer {peer.host_key}\n")
        known.flush()
        process = subprocess.Popen(
            ssh_argv(home, peer, known.name, own_address()),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            bufsize=0, pipesize=_BLOCK,
        )  # fmt: skip
        try:
            yield BlobStream(process, peer, limit_kib_s)
        finally:
            process.kill()
            process.communicate()


def own_address() -> str:
    """The address at which this host was reached, "" when it was not: peers may know no other."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else ""


def ssh_argv(home: HostHome, peer: Peer, known_hosts: str, own: str) -> list[str]:
    """The ssh client to a peer: this host's key, the one pinned key, no file of anybody else."""
    return [
        "ssh", "-F", "none", "-T", "-i", str(home.fetch_key),
        "-o", f"UserKnownHostsFile={known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no", "-o", "HostKeyAlias=peer",
        "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
        "-o", "LogLevel=ERROR", "-o", f"ConnectTimeout={_CONNECT_S}",
        # Processors do it in hardware: a third of the time of the default.
        "-o", "Ciphers=^aes128-gcm@openssh.com",
        # A peer that falls silent is given up, and the controller sends instead.
        "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
        *(["-b", own] if own else []),
        "-p", str(peer.port), "--", peer.address,  # as the user of this name there
    ]  # fmt: skip
