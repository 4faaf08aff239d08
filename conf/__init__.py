"""The configuration tree: one Hydra tree for both planes, composed by `compose`.

`conf` is the one package that training and serving both read their settings from; it imports
nothing of either and no heavy library, so that a command line answers at once.
"""

from conf.errors import ConfigError, LockgateError
from conf.tree import compose, options, repo_root

__all__ = ["ConfigError", "LockgateError", "compose", "options", "repo_root"]
