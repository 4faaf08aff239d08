"""What `fab -l` shows; see serving/fleet/tasks.py."""

from serving.fleet.tasks import deploy, heal, plan, rollback, status  # noqa: F401
