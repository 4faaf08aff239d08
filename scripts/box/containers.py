"""Containers of the box: oci.conf, by which a node's slurmd starts a rank with --container in runc.

See https://slurm.schedmd.com/oci.conf.html
"""

from __future__ import annotations

from conf.site_schema import Site
from scripts.box.program import File, Folder

RUNC = "/usr/sbin/runc"


def oci_conf(site: Site) -> str:
    """Text of oci.conf: runc as the job's own user, who may make no control groups.

    Not crun: it starts nothing where control groups are of both versions, as on older kernels.
    """
    runc = f"{RUNC} --rootless=true --root={state_folder(site).path}"
    container = "%n.%u.%j.%s.%t"  # node, user, job, step, task
    return "\n".join(
        [
            "# Written by scripts/site up; edit conf/site, not this file.",
            f'RunTimeQuery="{runc} state {container}"',
            f'RunTimeKill="{runc} kill -a {container}"',
            f'RunTimeDelete="{runc} delete --force {container}"',
            f'RunTimeRun="{runc} run --bundle=%b {container}"',
            "",
        ]
    )


def file(site: Site) -> File:
    """oci.conf, which Slurm looks for beside slurm.conf."""
    return File(site.paths.slurm_conf.parent / "oci.conf", oci_conf(site))


def state_folder(site: Site) -> Folder:
    """runc's own folder: of the training user, the only one who may submit here."""
    user = site.users.train
    return Folder(site.paths.run / "runc", user, user, 0o700)
