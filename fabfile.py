"""What `fab -l` shows; see serving/fleet/cli/tasks.py."""

from serving.fleet.cli.tasks import deploy, heal, lock, plan, rollback, status, unlock  # noqa: F401
