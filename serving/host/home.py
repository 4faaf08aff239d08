"""One serving host's folders, and the settings that its installation fixed in etc/host.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class HostHome:
    """Folders below `root`. `grpc_target` is the URL of Triton's control socket.

    `restart` is the command that restarts Triton; `triton` the command line of the server, and
    `verify_socket` the place where its start waits for a verification. Between two verifications
    of what serves lie at most `verify_interval_s` seconds. A package that arrives needs `approvals`
    signatures of approvers beside the release's.

    `http` is the (address, port) of Triton's inference, `agent` that of the host's verdict on its
    answers. Golden questions come every `golden_interval_s`, and one that is not answered within
    `golden_timeout_s` is a wrong answer. `logs` is the command that shows the last `{lines}` lines
    of Triton's log. A model has at most `max_instances` instances here.
    """

    root: Path
    grpc_target: str
    verify_socket: Path
    verify_interval_s: float
    restart: tuple[str, ...]
    triton: tuple[str, ...]
    http: tuple[str, int]
    agent: tuple[str, int]
    golden_interval_s: float
    golden_timeout_s: float
    logs: tuple[str, ...]
    approvals: int = 0
    max_instances: int = 1

    @property
    def staging(self) -> Path:
        """The folder where packages arrive; nothing in it is trusted."""
        return self.root / "staging"

    @property
    def packages(self) -> Path:
        """Verified packages, `<model>/<N>/`."""
        return self.root / "packages"

    @property
    def repository(self) -> Path:
        """Triton's model repository, `<model>/config.pbtxt` and `<model>/<N>/`."""
        return self.root / "model-repository"

    @property
    def state(self) -> Path:
        """The host's memory: fence, highest versions, revoked digests, last verification."""
        return self.root / "state"

    @property
    def offers(self) -> Path:
        """Keys of other hosts and the packages they may read now, as sshd reads it."""
        return self.state / "offers"

    @property
    def peers(self) -> Path:
        """The other hosts of the region."""
        return self.root / "etc" / "peers.json"

    @property
    def fetch_key(self) -> Path:
        """The private key by which this host reads packages of its peers."""
        return self.root / "etc" / "fetch_key"

    @property
    def allowed_signers(self) -> Path:
        """Public keys whose signatures count on this host."""
        return self.root / "etc" / "allowed_signers"

    def staged(self, model: str, version: int) -> Path:
        """The folder where `model`/`version` arrives."""
        return self.staging / f"{model}-{version}"

    def package(self, model: str, version: int) -> Path:
        """The verified package of `model`/`version`."""
        return self.packages / model / str(version)

    def installed(self, model: str, version: int) -> Path:
        """Triton's copy of the version folder."""
        return self.repository / model / str(version)


def settings_json(
    *,
    grpc_target: str,
    verify_socket: Path,
    verify_interval_s: float,
    restart: list[str],
    triton: list[str],
    http: tuple[str, int],
    agent: tuple[str, int],
    golden_interval_s: float,
    golden_timeout_s: float,
    logs: list[str],
    approvals: int = 0,
    max_instances: int = 1,
) -> str:
    """The text of etc/host.json; see `HostHome`."""
    values = {
        "grpc_target": grpc_target,
        "verify_socket": str(verify_socket),
        "verify_interval_s": verify_interval_s,
        "restart": restart,
        "triton": triton,
        "http": [*http],
        "agent": [*agent],
        "golden_interval_s": golden_interval_s,
        "golden_timeout_s": golden_timeout_s,
        "logs": logs,
        "approvals": approvals,
        "max_instances": max_instances,
    }
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def read_home(root: Path) -> HostHome:
    """The host at `root`. Raises OSError, ValueError or KeyError for a broken installation."""
    values = json.loads((root / "etc" / "host.json").read_text(encoding="utf-8"))
    return HostHome(
        root,
        str(values["grpc_target"]),
        Path(values["verify_socket"]),
        float(values["verify_interval_s"]),
        tuple(values["restart"]),
        tuple(values["triton"]),
        _endpoint(values["http"]),
        _endpoint(values["agent"]),
        float(values["golden_interval_s"]),
        float(values["golden_timeout_s"]),
        tuple(values["logs"]),
        int(values["approvals"]),
        int(values["max_instances"]),
    )


def _endpoint(value: list[Any]) -> tuple[str, int]:
    address, port = value
    return str(address), int(port)
