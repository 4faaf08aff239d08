"""Count of a call while torch.compile traces it. Apart, because the mark below imports Dynamo."""

from contextlib import suppress

import torch

from kernels.backend import KernelError
from kernels.calls import count_served


@torch.compiler.assume_constant_result
def count_traced(name: str, device: str) -> bool:
    """Count a call of operator `name`, once for each time it is traced; no part of the graph.

    A result is what Dynamo needs to take the function for a constant.
    """
    with suppress(KernelError):  # the operator itself raises it
        count_served(name, device, traced=True)
    return True
