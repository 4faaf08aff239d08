"""What `fab -l` lists in this project: the tasks of Lockgate."""

from serving.fleet.tasks import *  # noqa: F403
