"""torch.compile of the model that trains; whatever else calls the model runs it as it is.

See https://docs.pytorch.org/docs/stable/generated/torch.compile.html
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from typing import Any

import torch

from conf.errors import ConfigError


def compile_training(engine: Any, device: torch.device) -> None:
    """Compile the module of a DeepSpeed `engine` in place, at its first step; names stay.

    Raises `ConfigError` on a CPU without a C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(
            f"compile=true: this node has no C++ compiler ({compiler}), which compiled code for a "
            "CPU is made with. Install it, or set compile=false."
        )
    torch.compiler.set_stance("default")  # Muon on a CPU turns it off
    engine.compile()


def uncompiled() -> AbstractContextManager[Any]:
    """A context in which a compiled module runs as it is written, as for an evaluation."""
    return torch.compiler.set_stance("force_eager")
