"""Checks of a site's values: regions, addresses, ports, names, paths.

Each raises ValueError("key=value: ..."), to which `conf.schema` adds the place of the dataclass.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from ipaddress import ip_address
from pathlib import Path

US_REGION = "us-"
POSIX_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
HOST_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def require_us_region(key: str, region: str) -> None:
    """Raise ValueError where `region`, found at `key`, is not one of the United States."""
    if not region.startswith(US_REGION):
        raise ValueError(
            f"{key}={region}: models are served from regions of the US only ({US_REGION}*)"
        )


def check_address(key: str, address: str) -> None:
    """Raise ValueError unless `address` is an IPv4 or IPv6 address or a host name (RFC 1123)."""
    try:
        ip_address(address)
    except ValueError:
        labels = address.split(".")
        named = len(address) <= 253 and all(map(HOST_LABEL.fullmatch, labels))
        if not named or labels[-1].isdigit():
            raise ValueError(f"{key}={address}: is neither an IP address nor a host name") from None


def check_serving_host(name: str, address: str, training: Container[str]) -> None:
    """Raise ValueError where a serving host is one of the nodes `training`, by name or address."""
    for one in (name, address, address.split(".")[0]):
        if one in training:
            raise ValueError(
                f"hosts.{name}={address}: {one} is a training node of the site's Slurm; a serving "
                "host may not be one"
            )


def host_port(address: str, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`: address and port as a URL has them (RFC 3986)."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def check_names(names: Mapping[str, str]) -> None:
    """Raise ValueError unless all are POSIX user or group names, and distinct."""
    for key, name in names.items():
        if not POSIX_NAME.fullmatch(name):
            raise ValueError(f"{key}={name}: must be a POSIX user or group name")
    check_distinct(names)


def check_distinct(values: Mapping[str, object]) -> None:
    """Raise ValueError where two keys have one value."""
    first: dict[object, str] = {}
    for key, value in values.items():
        if value in first:
            raise ValueError(f"{key}={value}: {first[value]} has it already")
        first[value] = key


def check_ports(ports: Mapping[str, int]) -> None:
    """Raise ValueError unless all are ports, 1 to 65535, and distinct."""
    for key, port in ports.items():
        if not 1 <= port <= 65535:
            raise ValueError(f"{key}={port}: must be a port, 1 to 65535")
    check_distinct(ports)


def check_absolute(key: str, path: Path) -> None:
    """Raise ValueError for a relative path."""
    if not path.is_absolute():
        raise ValueError(f"{key}={path}: must be absolute")


def check_at_least_one(numbers: Mapping[str, int]) -> None:
    """Raise ValueError for a number below 1."""
    for key, number in numbers.items():
        if number < 1:
            raise ValueError(f"{key}={number}: must be at least 1")
