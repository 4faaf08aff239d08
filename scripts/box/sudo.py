"""The rules of sudo that the release needs: run a candidate as its user, and the signer as its own.

https://www.sudo.ws/docs/man/sudoers.man/
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from conf.site_schema import Site
from scripts.box.files import write_atomically
from scripts.box.program import Refusal
from serving.artifact.digest import bytes_sha256
from serving.release.signing import signer_command

FOLDER = Path("/etc/sudoers.d")


def rules(site: Site) -> str:
    """The text of the sudoers file.

    The release may run anything as the candidate's user, which owns nothing, and one command line,
    word for word, as the signer's.
    """
    release, sign, candidate = site.users.release, site.users.sign, site.users.candidate
    signer = " ".join(map(escaped, signer_command(site.paths.release_key, site.paths.signed)))
    return "\n".join(
        [
            "# Written by scripts/site up, removed by scripts/site down; edit conf/site, not this.",
            # A terminal of sudo's own would stand between a server and the pipe that it lives by.
            f"Defaults:{release} !use_pty, !requiretty, !lecture",
            f"{release} ALL=({candidate}) NOPASSWD: ALL",
            f"{release} ALL=({sign}) NOPASSWD: {signer}",
            "",
        ]
    )


def escaped(word: str) -> str:
    """A word of a command as sudoers takes it literally, without wildcards. Raises Refusal."""
    if not word.isprintable() or '"' in word or " " in word:
        raise Refusal(f"{word!r} cannot stand in a rule of sudo: choose a path without it")
    return re.sub(r"([\\,:=#!()*?\[\]])", r"\\\1", word)


def path_of(site: Site) -> Path:
    """The site's file in FOLDER, whose names may have no dot."""
    return FOLDER / f"lockgate-{bytes_sha256(bytes(site.root))[:12]}"


def ensure(site: Site) -> None:
    """Put the rules in place, checked by visudo first: a file that is wrong would lock out all."""
    text, path = rules(site), path_of(site)
    if path.exists() and path.read_text() == text:
        return
    draft = site.paths.etc / "sudoers"
    write_atomically(draft, text.encode(), "root", "root", 0o440)
    check = ["visudo", "--check", "--file", str(draft)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Refusal(f"visudo refuses {draft}: {(done.stdout + done.stderr).strip()}")
    FOLDER.mkdir(mode=0o750, exist_ok=True)
    write_atomically(path, text.encode(), "root", "root", 0o440)


def remove(site: Site) -> None:
    """Take the rules away."""
    path_of(site).unlink(missing_ok=True)
