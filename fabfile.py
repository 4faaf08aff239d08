"""What `fab -l` shows; see serving/fleet/cli/tasks.py."""

from serving.fleet.cli.tasks import *  # noqa: F403
