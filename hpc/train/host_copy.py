"""A copy of a state dict in this host's memory: what a checkpoint is written from later."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

Storages = dict[tuple[str, int], torch.UntypedStorage]
PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.Size, torch.device)


def host_copy(value: Any, copied: Storages | None = None) -> Any:
    """`value` with every tensor copied to the CPU; tensors that share storage share the copy's.

    Containers are copied too, and other objects as `copy.deepcopy` does: the training that goes on
    changes nothing of it. A view keeps its whole storage, as in `torch.save`.
    """
    copied = {} if copied is None else copied
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Tensor):
        return _tensor_copy(value, copied)
    if type(value) in (dict, OrderedDict):
        made = type(value)((key, host_copy(one, copied)) for key, one in value.items())
        if isinstance(value, OrderedDict):  # a module's state dict carries versions beside it
            vars(made).update(host_copy(vars(value), copied))
        return made
    if type(value) in (list, tuple):
        return type(value)(host_copy(one, copied) for one in value)
    return copy.deepcopy(value)


def _tensor_copy(value: Tensor, copied: Storages) -> Tensor:
    source = value.detach().untyped_storage()
    key = (str(value.device), source.data_ptr())
    if source.nbytes() == 0:
        return torch.empty(value.shape, dtype=value.dtype)
    if key not in copied:
        copied[key] = source.cpu() if value.device.type != "cpu" else source.clone()
    made = torch.empty(0, dtype=value.dtype)
    return made.set_(copied[key], value.storage_offset(), value.shape, value.stride())
