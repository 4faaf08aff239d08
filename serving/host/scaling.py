"""The number of instances of a model on this host, by a controller's word and within its own limit.

It is the host's, not the package's: every config that is built here from a package has it, so that
a version that comes later is served as the one before it.
"""

from __future__ import annotations

from serving.host import repository, state, wanted
from serving.host.errors import HostRefusal
from serving.host.home import HostHome


def scale_model(home: HostHome, model: str, count: int | None) -> None:
    """Give `model` `count` instances, as packaged where None; what is persisted has it at once.

    Raises HostRefusal("instances") above `max_instances`, HostRefusal for a package that is not as
    signed; nothing is changed then.
    """
    if count is not None and count > home.max_instances:
        raise HostRefusal(
            "instances",
            f"{count} instances of {model} are more than this host takes: {home.max_instances} at "
            "most (site.triton.max_instances)",
        )
    versions = wanted.configured_versions(home, model)
    for version in versions:
        repository.install(home, model, version)
    state.remember_instances(home, model, count)
    if versions:
        repository.persist(home, model, versions)
