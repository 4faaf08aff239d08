"""munged with a key and a socket of its own: a munged of the distribution is not disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.box.keys import ensure_secret
from scripts.box.probe import succeeds
from scripts.box.program import Folder, Program


def socket(site: Any) -> Path:
    """Where the box's munged listens; Slurm is told by AuthInfo."""
    return Path(site.paths.run) / "munge" / "munge.sock"


def _key(site: Any) -> Path:
    return Path(site.paths.etc) / "munge" / "munge.key"


def folders(site: Any) -> list[Folder]:
    user = str(site.users.munge)
    return [
        Folder(_key(site).parent, user, user, 0o700),
        Folder(socket(site).parent, user, user, 0o755),
        Folder(Path(site.root) / "munge", user, user, 0o700),
    ]


def ensure_key(site: Any) -> None:
    ensure_secret(_key(site), str(site.users.munge), 1024, text=False)


def programs(site: Any) -> list[Program]:
    run = socket(site).parent
    return [
        Program(
            name="munged",
            argv=(
                "/usr/sbin/munged", "--foreground",
                # A checkout may lie under somebody's own folder; munged would refuse for that.
                # The key's own folder is 0700 and munge's.
                "--force", "--num-threads=10",
                f"--key-file={_key(site)}", f"--socket={socket(site)}",
                f"--pid-file={run / 'munged.pid'}",
                f"--seed-file={Path(site.root) / 'munge' / 'seed'}",
                f"--log-file={Path(site.root) / 'munge' / 'munged.log'}",
            ),
            user=str(site.users.munge),
            probe=succeeds(["munge", "--no-input", f"--socket={socket(site)}"], "MUNGE:"),
        )
    ]  # fmt: skip
