"""The tasks that `fab -l` lists in this project: Lockgate's."""

from serving.fleet.cli.tasks import *  # noqa: F403
