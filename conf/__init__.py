"""The configuration tree: one Hydra tree for both planes, composed by `compose`; its errors, its
converter to dataclasses and its plug-ins. Imports nothing of either plane and no heavy library;
Hydra only when something is composed, so that a host without it can still read a manifest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from conf.errors import ConfigError, LockgateError

if TYPE_CHECKING:
    from conf.project import Project, enter_project, find_project
    from conf.tree import compose, options, repo_root

__all__ = [
    "ConfigError", "LockgateError", "Project", "compose", "enter_project", "find_project",
    "options", "repo_root",
]  # fmt: skip
PROJECT = ("Project", "enter_project", "find_project")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'conf' has no attribute {name!r}; it has {__all__}")
    return getattr(import_module("conf.project" if name in PROJECT else "conf.tree"), name)
