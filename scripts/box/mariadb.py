"""MariaDB for Slurm's accounting: own data folder, own socket, no network, no password."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from conf.site_schema import Site
from scripts.box.probe import succeeds
from scripts.box.program import Folder, Program, Refusal


def data(site: Site) -> Path:
    return site.root / "mysql"


def socket(site: Site) -> Path:
    return site.paths.run / "mysql" / "mysqld.sock"


def folders(site: Site) -> list[Folder]:
    # Beside MariaDB itself only slurmdbd has business at its socket.
    return [Folder(socket(site).parent, site.users.mysql, site.users.slurm, 0o750)]


def grants(site: Site) -> str:
    """SQL that gives the accounting database to slurmdbd's OS user, authenticated by socket."""
    user, database = site.users.slurm, site.slurm.db
    return (
        f"CREATE USER IF NOT EXISTS '{user}'@'localhost' IDENTIFIED VIA unix_socket;\n"
        f"GRANT ALL ON `{database}`.* TO '{user}'@'localhost';\n"
    )


def ensure_data(site: Site) -> None:
    """Make the data folder. Made aside and renamed: a killed attempt leaves nothing behind."""
    if data(site).exists():
        return
    new = data(site).with_name(".mysql.new")
    shutil.rmtree(new, ignore_errors=True)
    done = subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={new}", f"--user={site.users.mysql}",
         "--auth-root-authentication-method=socket", "--skip-test-db"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise Refusal(f"mariadb-install-db failed: {(done.stderr or done.stdout).strip()[-400:]}")
    new.rename(data(site))


def ensure_grants(site: Site) -> None:
    """Give slurmdbd its database; MariaDB must be up. Done twice changes nothing."""
    subprocess.run(
        ["mariadb", "--no-defaults", f"--socket={socket(site)}", "--user=root"],
        input=grants(site),
        text=True,
        check=True,
        capture_output=True,
    )


def programs(site: Site) -> list[Program]:
    return [
        Program(
            name="mariadbd",
            argv=(
                "/usr/sbin/mariadbd", "--no-defaults",
                f"--datadir={data(site)}", f"--socket={socket(site)}",
                f"--pid-file={socket(site).with_name('mariadbd.pid')}",
                "--skip-networking", "--skip-name-resolve",
                # What slurmdbd requires, at the size of a box.
                "--innodb-buffer-pool-size=128M", "--innodb-lock-wait-timeout=900",
                "--max-allowed-packet=16M",
            ),
            user=site.users.mysql,
            probe=succeeds(
                ["mariadb-admin", "--no-defaults", f"--socket={socket(site)}", "--user=root",
                 "--connect-timeout=3", "ping"], "mysqld is alive",
            ),
            stop_wait_s=30,
        )
    ]  # fmt: skip
