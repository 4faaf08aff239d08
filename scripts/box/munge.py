"""munged with a key and a socket of its own: a munged of the distribution is not disturbed."""

from __future__ import annotations

from pathlib import Path

from conf.site_schema import Site
from scripts.box.keys import ensure_secret
from scripts.box.probe import succeeds
from scripts.box.program import Folder, Program


def socket(site: Site) -> Path:
    """Socket of the box's munged, which Slurm's AuthInfo names."""
    return site.paths.run / "munge" / "munge.sock"


def key(site: Site) -> Path:
    """File of the key that every munged of the site shares."""
    return site.paths.etc / "munge" / "munge.key"


def folders(site: Site) -> list[Folder]:
    user = site.users.munge
    return [
        Folder(key(site).parent, user, user, 0o700),
        Folder(socket(site).parent, user, user, 0o755),
        Folder(site.root / "munge", user, user, 0o700),
    ]


def ensure_key(site: Site) -> None:
    ensure_secret(key(site), site.users.munge, 1024, text=False)


def programs(site: Site) -> list[Program]:
    run = socket(site).parent
    return [
        Program(
            name="munged",
            argv=(
                "/usr/sbin/munged", "--foreground",
                # A checkout may lie under somebody's own folder; munged would refuse for that.
                # The key's own folder is 0700 and munge's.
                "--force", "--num-threads=10",
                f"--key-file={key(site)}", f"--socket={socket(site)}",
                f"--pid-file={run / 'munged.pid'}",
                f"--seed-file={site.root / 'munge' / 'seed'}",
                f"--log-file={site.root / 'munge' / 'munged.log'}",
            ),
            user=site.users.munge,
            probe=succeeds(["munge", "--no-input", f"--socket={socket(site)}"], "MUNGE:"),
        )
    ]  # fmt: skip
