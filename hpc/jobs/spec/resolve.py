"""Resolve a composed config at submit, and keep secrets out of what is written.

A spec is stored, copied and shown, so a secret may be in it only as the name of an environment
variable: `${oc.env:NAME}`, with NAME in cluster.pass_environment. The job resolves it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import ConfigError
from hpc.jobs.errors import SecretInConfig

SECRET_NAME = re.compile(
    r"(^|_)(password|passwd|secret|api_?key|access_?key|private_?key|credentials?"
    r"|(?<!bos_)(?<!eos_)(?<!pad_)(?<!unk_)(?<!mask_)token)$",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"://[^/@\s:]+:[^/@\s]+@"  # a URL with a password
    r"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{30,}|\bhf_\w{30,}|\bglpat-[\w-]{20,}|\bsk-[\w-]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
SHORTEST = 6  # a shorter secret would be found by chance all over a config
REFERENCE = re.compile(r"\$\{oc\.env:\s*(\w+)\s*\}")


def resolve(config: DictConfig, passed: Collection[str]) -> dict[str, Any]:
    """`config` as plain values with every interpolation resolved, except those of secrets.

    `passed` names the environment variables that travel to the job. Raises `SecretInConfig` for a
    secret in plain text, and `ConfigError` for an interpolation that leads nowhere or a value that
    was not given.
    """
    raw = OmegaConf.to_container(config, resolve=False)
    for path, value in _leaves(raw):
        if value == "???":
            raise ConfigError(f"{'.'.join(path)}: needs a value, as in {'.'.join(path)}=...")
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).strip().splitlines()[0]) from error
    assert isinstance(plain, dict)  # the config of a run is a mapping at its top
    kept: dict[str, str] = {}  # the secret's value -> where it was referred to
    for path, value in list(_leaves(plain)):
        if not isinstance(value, str) or not value:
            continue
        reference = _reference(_at(raw, path))
        if reference and (SECRET_NAME.search(path[-1]) or SECRET_NAME.search(reference)):
            if reference not in passed:
                raise SecretInConfig(
                    f"{'.'.join(path)} reads ${reference} in the job, but {reference} does not "
                    f"travel there. Add it: 'cluster.pass_environment=[{reference}]'"
                )
            branch = _at(plain, path[:-1])
            place = path[-1] if isinstance(branch, dict) else int(path[-1])
            branch[place] = f"${{oc.env:{reference}}}"
            kept[value] = ".".join(path)
        elif SECRET_NAME.search(path[-1]) or SECRET_VALUE.search(value):
            raise SecretInConfig(
                f"{'.'.join(path)} looks like a secret, and a spec is kept and shown. Export it as "
                f"a variable and write {'.'.join(path)}='${{oc.env:NAME}}' "
                "with 'cluster.pass_environment=[NAME]'"
            )
    for path, value in _leaves(plain):
        for secret, origin in kept.items():
            if isinstance(value, str) and len(secret) >= SHORTEST and secret in value:
                raise SecretInConfig(f"{'.'.join(path)} would repeat the secret of {origin}")
    return {str(key): value for key, value in plain.items()}


def _reference(value: Any) -> str | None:
    match = REFERENCE.fullmatch(value.strip()) if isinstance(value, str) else None
    return match.group(1) if match else None


def _at(node: Any, path: tuple[str, ...]) -> Any:
    """The node at `path`; None where an interpolation stands for a whole branch."""
    for key in path:
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list):
            node = node[int(key)]
        else:
            return None
    return node


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, child in node.items():
            yield from _leaves(child, (*path, str(key)))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _leaves(child, (*path, str(index)))
    else:
        yield path, node
