"""Triton in a container of podman, as lines of its unit: the same identity, sockets, repository.

The unit's hardening holds for the verification before the start. Podman itself needs root's rights
(the `+`), and confines Triton by its own flags instead: no capability, no new privileges, the image
and the repository read-only, one folder to write in. It makes the container in the unit's control
group, whose limits of memory, tasks and processors, and devices, count for it too.
"""

from __future__ import annotations

from serving.fleet.bootstrap.hardened_unit import command_line, environment_lines
from serving.fleet.bootstrap.layout import HostLayout

NAME = "lockgate-triton"


def triton_container(layout: HostLayout) -> list[str]:
    """Lines that verify, run and, after a crash, remove the container."""
    prepare, remove = layout.program("prepare"), ("/usr/bin/podman", "rm", "--force", NAME)
    return [
        *environment_lines(layout.session_environment),
        f"ExecStartPre={command_line(prepare)}",
        f"ExecStart=+{command_line(podman_run(layout))}",
        f"ExecStopPost=+-{command_line((*remove, '--ignore'))}",
        # The container's own control group, below the unit's.
        "Delegate=yes",
    ]


def podman_run(layout: HostLayout) -> list[str]:
    """The command line of podman, in the foreground, so that signals and output are Triton's."""
    settings, server = layout.settings, layout.triton
    program, *arguments = server.argv()
    repository, run = layout.path("model-repository"), layout.path("run/triton")
    # The names of the host's accounts count in the container, for --user and for its groups.
    names = [f"--volume={path}:{path}:ro" for path in ("/etc/passwd", "/etc/group")]
    return [
        "/usr/bin/podman", "run", f"--name={NAME}", "--rm", "--replace", "--pull=never",
        "--log-driver=none", "--cgroups=split", f"--stop-timeout={layout.exit_timeout_s}",
        # As without a container: the host's address, and regions of /dev/shm that can be counted.
        "--network=host", "--ipc=host",
        f"--user={layout.triton_user}", "--umask=0007", *names,
        "--cap-drop=all", "--security-opt=no-new-privileges", "--read-only",
        f"--pids-limit={settings.tasks_max}", "--ulimit=nofile=65536:65536",
        f"--volume={repository}:{repository}:ro", f"--volume={run}:{run}",
        *(f"--device={device}" for device in settings.devices),
        *(f"--env={key}={value}" for key, value in sorted(server.environment().items())),
        f"--entrypoint={program}", settings.image, *arguments,
    ]  # fmt: skip
