"""The address of a checkpoint store: its form, without the libraries that reach it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from conf.errors import ConfigError
from conf.names import nearest, shown

KEY = "checkpoint_store"
PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "abfs": "adlfs",
}
"""Schemes of object stores, and the package by which fsspec reaches each of them."""
FOLDER = "file"
SCHEMES = (*PACKAGES, FOLDER)
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}(@[A-Za-z0-9.-]+)?", re.ASCII)
"""A bucket, or of Azure CONTAINER@ACCOUNT.dfs.core.windows.net."""
PATH = re.compile(r"[A-Za-z0-9/._=+-]*", re.ASCII)


def scheme_of(address: str) -> str:
    """The scheme of an address, `file` for a plain folder."""
    return address.partition("://")[0] if "://" in address else FOLDER


def folder_of(address: str) -> str:
    """The path of a store that is a folder."""
    return address.removeprefix(f"{FOLDER}://")


def check_store_address(address: str) -> None:
    """Raise ValueError for what is no address of a store, or holds more than an address.

    The address is written into the spec: no user, password, key or option stands in it.
    """
    scheme = scheme_of(address)
    if scheme == FOLDER:
        path = folder_of(address)
        if not path.startswith("/") or ".." in PurePosixPath(path).parts or "\0" in path:
            raise ValueError(
                f"{KEY}={address}: a folder is named by its whole path, such as /durable/runs; an "
                "object store by a URL, such as s3://bucket/prefix"
            )
        return
    if scheme not in SCHEMES:
        raise ValueError(
            f"{KEY}={address}: no such kind of store. {nearest(scheme, SCHEMES)}. As in "
            "s3://bucket/prefix, or /durable/runs for a folder"
        )
    if not address.isprintable() or " " in address:  # urlsplit would leave a newline out
        raise ValueError(f"{KEY}={shown(address)}: must be {scheme}://BUCKET/PREFIX")
    parts = urlsplit(address)
    user, _, _ = parts.netloc.rpartition("@")
    if parts.query or parts.fragment or ":" in parts.netloc or (user and scheme != "abfs"):
        raise ValueError(
            f"{KEY}={scheme}://...: it is written into the spec, so it holds bucket and prefix "
            "alone. Credentials and endpoints come from where fsspec finds them in the job: a "
            "profile of yours, the node's role, or ~/.config/fsspec"
        )
    if not BUCKET.fullmatch(parts.netloc) or not PATH.fullmatch(parts.path) or ".." in parts.path:
        raise ValueError(f"{KEY}={address}: must be {scheme}://BUCKET/PREFIX")


def check_store_package(address: str) -> None:
    """Raise `ConfigError` where the package that reaches the store is not installed here."""
    package = PACKAGES.get(scheme_of(address))
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            f"{KEY}={address}: {scheme_of(address)}:// needs the package {package}, which is not "
            f"installed here. Install it beside Lockgate: pip install {package}"
        )
