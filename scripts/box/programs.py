"""The whole box as a value: every folder, file and program of a site."""

from __future__ import annotations

from pathlib import Path

from conf.site_schema import Site
from scripts.box import (
    edge,
    hosts,
    identity,
    mariadb,
    mlflow,
    monitoring,
    munge,
    passwords,
    slurm,
)
from scripts.box.program import File, Folder, Program


def all_programs(site: Site) -> list[Program]:
    """Every daemon, in an order in which each comes after what it needs."""
    return [
        *munge.programs(site),
        *mariadb.programs(site),
        *hosts.programs(site),
        *edge.programs(site),
        *slurm.programs(site),
        *monitoring.programs(site),
        # Last: writing its accounts takes seconds, in which the others come up.
        *mlflow.programs(site),
    ]


def all_folders(site: Site) -> list[Folder]:
    """Every folder of the site with its owner, parents first."""
    root, paths, users = site.root, site.paths, site.users

    def owned(path: Path, user: str) -> Folder:
        return Folder(path, user, user)

    return [
        Folder(root),
        Folder(paths.etc),
        Folder(paths.log),
        Folder(paths.run),
        owned(paths.data, users.train),
        owned(paths.runs, users.train),
        owned(paths.store, users.release),
        # Entered by the release and the candidate; setgid: what is made in it is for that group.
        Folder(paths.gates, users.release, users.candidate, 0o2710),
        Folder(paths.signed, users.sign, users.sign, 0o700),
        owned(paths.journal, users.deploy),
        Folder(root / "keys"),
        # The folders of the keys are root's: an identity can use its key, not replace it.
        Folder(paths.release_key.parent),
        Folder(paths.deploy_key.parent),
        *passwords.folders(site),
        *identity.folders(site),
        *munge.folders(site),
        *mariadb.folders(site),
        *slurm.folders(site),
        *hosts.folders(site),
        *edge.folders(site),
        *mlflow.folders(site),
        *monitoring.folders(site),
    ]


def all_files(site: Site, programs: list[Program]) -> list[File]:
    """Every generated config: those that programs read, and Slurm's, which clients read too."""
    by_path = {file.path: file for program in programs for file in program.files}
    by_path.update({file.path: file for file in slurm.files(site)})
    return list(by_path.values())


def stop_order(programs: list[Program]) -> list[list[Program]]:
    """The programs in waves: those of one wave may stop together, each after all that need it.

    Edges are in the first wave and Triton in the second: nothing is sent to a host that goes away.
    """
    waves: list[list[Program]] = []
    left = list(programs)
    while left:
        needed = {name for program in left for name in program.needs}
        wave = [program for program in left if program.name not in needed]
        if not wave:
            raise ValueError(f"programs need each other in a circle: {[p.name for p in left]}")
        waves.append(wave)
        left = [program for program in left if program not in wave]
    return waves
