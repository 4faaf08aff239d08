"""The list of hosts in a site's file, edited as a person edits it: one line a host. Pure.

A site's file is kept by people, with comments and under version control, so fab changes the one
line that it must and nothing else, and only where the result parses to exactly the wanted hosts.
A list that is written in another way is left alone, and the error has the line to type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from conf.names import nearest
from serving.fleet.errors import FleetConfigError

Hosts = Mapping[str, Mapping[str, Any]]
_ENTRY = r"  (?P<name>[\w.-]+): *\{.*\} *(#.*)?"


def with_host(text: str, name: str, address: str, region: str) -> str:
    """The file with one host more, behind the others. Raises FleetConfigError."""
    hosts = _hosts(text)
    if name in hosts:
        raise FleetConfigError(
            f"there is a host {name} already, at {hosts[name].get('address')}. To put another "
            f"machine in its place: fab replace {name} NEW --address ADDRESS"
        )
    line = f"  {name}: {{address: {address}, region: {region}}}"
    lines = text.split("\n")
    last = max(_entries(lines).values(), default=_head(lines))
    lines.insert(last + 1, line)
    return _checked("\n".join(lines), {**hosts, name: {"address": address, "region": region}}, line)


def without_host(text: str, name: str) -> str:
    """The file without the host `name`. Raises FleetConfigError."""
    hosts = _hosts(text)
    _require(name, hosts)
    region = hosts[name].get("region")
    if [host.get("region") for host in hosts.values()].count(region) == 1:
        raise FleetConfigError(
            f"{name} is the only host of {region}: its edge would have none. Add another first: "
            f"fab add NEW --address ADDRESS --region {region}"
        )
    lines = text.split("\n")
    at = _entries(lines).get(name)
    if at is not None:
        del lines[at]
    wanted = {one: host for one, host in hosts.items() if one != name}
    return _checked("\n".join(lines), wanted, f"(nothing for {name})")


def with_replaced(text: str, old: str, new: str, address: str) -> str:
    """The file with `new` in the line of `old`, with its region. Raises FleetConfigError."""
    hosts = _hosts(text)
    _require(old, hosts)
    if new != old and new in hosts:
        raise FleetConfigError(f"there is a host {new} already; {old} was not replaced.")
    entry = {**hosts[old], "address": address}
    lines = text.split("\n")
    at = _entries(lines).get(old)
    line = f"  {new}: {{address: {address}, region: {entry.get('region')}}}"
    if at is not None:
        line = re.sub(r"(?<=[{ ])address: *[^,}\s]+", f"address: {address}", lines[at])
        lines[at] = re.sub(r"^  [\w.-]+", f"  {new}", line)
    wanted = {(new if one == old else one): (entry if one == old else host)
              for one, host in hosts.items()}  # fmt: skip
    return _checked("\n".join(lines), wanted, line)


def _hosts(text: str) -> Hosts:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FleetConfigError(f"the site's file is no YAML: {error}") from error
    hosts = content.get("hosts") if isinstance(content, dict) else None
    if not isinstance(hosts, dict) or not all(isinstance(one, dict) for one in hosts.values()):
        raise FleetConfigError("the site's file has no `hosts:` with an entry for each host.")
    return hosts


def _require(name: str, hosts: Hosts) -> None:
    if name not in hosts:
        raise FleetConfigError(f"the site has no host {name!r}. {nearest(name, hosts)}.")


def _head(lines: list[str]) -> int:
    """The line `hosts:`."""
    heads = [n for n, line in enumerate(lines) if re.fullmatch(r"hosts: *(#.*)?", line)]
    return heads[0] if heads else -1


def _entries(lines: list[str]) -> dict[str, int]:
    """Line number of each host that has a line of its own."""
    found: dict[str, int] = {}
    head = _head(lines)
    for number in range(head + 1, len(lines) if head >= 0 else 0):
        entry = re.fullmatch(_ENTRY, lines[number])
        if entry:
            found[entry["name"]] = number
        elif lines[number].strip() and not lines[number].startswith((" ", "#")):
            break
    return found


def _checked(text: str, wanted: Hosts, line: str) -> str:
    """`text`, where its hosts are `wanted`, in that order. Raises FleetConfigError."""
    try:
        found: Any = _hosts(text)
    except FleetConfigError:
        found = None
    if found != wanted:
        raise FleetConfigError(
            "the hosts of the site's file are not written one a line, as in `  h1: {address: "
            f"10.0.0.7, region: us-east}}`, so it was left as it is. Write there: {line.strip()}"
        )
    return text
