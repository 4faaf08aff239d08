"""What `fab -l` shows; see serving/fleet/cli/tasks.py and host_tasks.py."""

from serving.fleet.cli.host_tasks import (  # noqa: F401
    add,
    bootstrap,
    pin,
    remove,
    replace,
    upgrade,
    wheelhouse,
)
from serving.fleet.cli.tasks import deploy, heal, lock, plan, rollback, status, unlock  # noqa: F401
