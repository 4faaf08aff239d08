"""`fab add`, `fab remove` and `fab replace`: hosts in the site's file, the one list of them.

They change that file and nothing else; the hosts themselves follow by the commands that they name.
fab keeps no second list: what is in version control is the fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conf import compose
from conf.errors import ConfigError
from conf.names import check_name, nearest
from conf.project import find_project
from conf.site_checks import check_address
from conf.site_schema import site_config
from conf.tree import option_files
from serving.artifact.durable import replace_file
from serving.fleet.bootstrap.site_file import with_host, with_replaced, without_host
from serving.fleet.errors import FleetConfigError, denied
from serving.fleet.inventory import fleet_from


def add(site: str, name: str, address: str, region: str) -> list[str]:
    """Add a host to the site's file; returns lines for people. Raises FleetConfigError."""
    _check(name, address)
    path = _edit(site, lambda text: with_host(text, name, address, region))
    return [f"{name} ({address}) is in {path}.", *_next_for(name), _EDGE]


def remove(site: str, name: str) -> list[str]:
    """Take a host out of the site's file; returns lines for people. Raises FleetConfigError."""
    path = _edit(site, lambda text: without_host(text, name))
    return [f"{name} is out of {path}. The machine itself is as it was.", _EDGE]


def replace(site: str, old: str, new: str, address: str) -> list[str]:
    """Put another machine in a host's place; returns lines for people. Raises FleetConfigError."""
    _check(new, address)
    path = _edit(site, lambda text: with_replaced(text, old, new, address))
    return [f"{new} ({address}) stands for {old} in {path}.", *_next_for(new), _EDGE]


_EDGE = "Then give the edges their new list: write their configs again and reload them."


def _next_for(name: str) -> list[str]:
    return [
        f"Next: fab pin {name} --fingerprint SHA256:... (of its own console), then fab bootstrap "
        f"{name}, then fab heal, which brings it the version in production."
    ]


def _check(name: str, address: str) -> None:
    check_name("the name of a host", name)
    try:
        check_address("--address", address)
    except ValueError as error:
        raise FleetConfigError(f"{error}.") from error


def _edit(site: str, change: Callable[[str], str]) -> Path:
    """Write the changed file of the site, if the whole site is then valid."""
    project = find_project()
    chosen = site or (project.site if project else "box")
    files = option_files("site")
    if chosen not in files:
        raise FleetConfigError(f"--site={chosen}: there is no such site. {nearest(chosen, files)}.")
    path = files[chosen]
    try:
        before = path.read_text(encoding="utf-8")
        replace_file(path, change(before))
    except OSError as error:
        raise denied("cannot write", path, error) from error
    try:
        config = compose("bootstrap", [f"site={chosen}"])
        site_config(config)
        fleet_from(config)
    except (ConfigError, FleetConfigError) as error:
        replace_file(path, before)
        raise FleetConfigError(f"{path} was left as it is, because then {error}") from error
    return path
