"""The configuration tree: one Hydra tree for both planes, composed by `compose`.

`conf` is the one package that training and serving both read their settings from; it imports
nothing of either and no heavy library, so that a command line answers at once.
"""

from conf.tree import ConfigError, compose, options, repo_root

__all__ = ["ConfigError", "compose", "options", "repo_root"]
