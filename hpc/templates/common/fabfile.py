"""What `fab -l` lists in this project: the tasks of Lockgate."""

from serving.fleet.cli.tasks import *  # noqa: F403
