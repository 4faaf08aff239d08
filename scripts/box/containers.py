"""Containers of the box: oci.conf, by which a node's slurmd starts a rank with --container in crun.

See https://slurm.schedmd.com/oci.conf.html
"""

from __future__ import annotations

from conf.site_schema import Site
from scripts.box.program import File, Folder

CRUN = "/usr/bin/crun"


def oci_conf(site: Site) -> str:
    """Text of oci.conf: crun as the job's own user, and without cgroups, as the box's Slurm is."""
    crun = f"{CRUN} --rootless=true --cgroup-manager=disabled --root={state_folder(site).path}"
    container = "%n.%u.%j.%s.%t"  # node, user, job, step, task
    return "\n".join(
        [
            "# Written by scripts/site up; edit conf/site, not this file.",
            f'RunTimeQuery="{crun} state {container}"',
            f'RunTimeKill="{crun} kill -a {container}"',
            f'RunTimeDelete="{crun} delete --force {container}"',
            f'RunTimeRun="{crun} run --bundle=%b {container}"',
            "",
        ]
    )


def file(site: Site) -> File:
    """oci.conf, which Slurm looks for beside slurm.conf."""
    return File(site.paths.slurm_conf.parent / "oci.conf", oci_conf(site))


def state_folder(site: Site) -> Folder:
    """crun's own folder: of the training user, the only one who may submit here."""
    user = site.users.train
    return Folder(site.paths.run / "crun", user, user, 0o700)
