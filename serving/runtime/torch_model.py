"""A torch module with named tensors in and out, for one that ONNX cannot express.

`module.json` names the module and its settings, `model.safetensors` has its weights, and its code
lies beside them. torch and safetensors are imported when it is loaded: a host without them serves
every other kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .array_inputs import ArraySpec, array_columns, read_array_inputs
from .batching import Answer, answer_together
from .own_code import OwnCode

MODULE = "module.json"
"""{"model": the mapping with `_target_` that makes it, "sizes": what its `build` is given where it
is a config, "outputs": names in the module's order}."""
WEIGHTS = "model.safetensors"
TARGET, PARTIAL = "_target_", "_partial_"


class TorchModel:
    """The module of one package version, fed as it is: `transform.json` names the inputs, each
    [batch, *shape] of its dtype, and `module.json` the outputs, each [batch, ...].

    Floating-point inputs come to the module in fp32, and its outputs leave in it.
    """

    def __init__(
        self, inputs: Sequence[ArraySpec], outputs: Sequence[str], module: Any, code: OwnCode
    ):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.module = module
        self.code = code

    @classmethod
    def load(cls, version_dir: Path, settings: Mapping[str, str] | None = None) -> TorchModel:
        """Make the module that `module.json` names, and give it its weights.

        `settings` are the parameters of config.pbtxt; of these `threads` is used, for the whole
        process, which is the instance's own. Raises ImportError where torch is not installed,
        ValueError for a transform of another kind, RuntimeError for weights of another module.
        """
        import torch
        from safetensors.torch import load_model

        folder = Path(version_dir)
        if settings and "threads" in settings:
            torch.set_num_threads(int(settings["threads"]))
        content = json.loads((folder / MODULE).read_text(encoding="utf-8"))
        tops = {name.partition(".")[0] for name in target_names(content["model"])}
        code = OwnCode(folder, {name for name in tops if _holds(folder, name)})
        with code.installed():
            module = _module(content["model"], content["sizes"], code).float().eval()
            load_model(module, folder / WEIGHTS)
        return cls(read_array_inputs(folder), content["outputs"], module, code)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every input, [batch, *shape] -> every output. Raises `InvalidInput`."""
        import torch

        tensors = [torch.from_numpy(np.array(one)) for one in self.columns(inputs).values()]
        with torch.no_grad(), self.code.installed():  # a forward may import what it needs
            found = self.module(*map(_in_fp32, tensors))
        outputs = [found] if isinstance(found, torch.Tensor) else list(found)
        arrays = [_in_fp32(one).detach().numpy() for one in outputs]
        return dict(zip(self.outputs, arrays, strict=True))

    def columns(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs, their names, dtypes and shapes checked. Raises `InvalidInput`."""
        return array_columns(self.inputs, inputs)

    def answer(self, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Answer]:
        """Answer several requests in one run of the module, as if each were alone."""
        return answer_together(self, requests)


def target_names(node: Any) -> list[str]:
    """Every `_target_` in `node` and in what it holds."""
    if isinstance(node, list):
        return [name for item in node for name in target_names(item)]
    if not isinstance(node, dict):
        return []
    own = [node[TARGET]] if TARGET in node else []
    return own + [name for item in node.values() for name in target_names(item)]


def _in_fp32(tensor: Any) -> Any:
    return tensor.float() if tensor.is_floating_point() else tensor


def _holds(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def _module(node: dict[str, Any], sizes: Mapping[str, Any], code: OwnCode) -> Any:
    made = _made(node, code)
    is_config: bool = is_dataclass(made)
    return made.build(**sizes) if is_config else made


def _made(value: Any, code: OwnCode) -> Any:
    """`value` with each mapping in it that has a `_target_` made into what this names."""
    if isinstance(value, list):
        return [_made(item, code) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _made(item, code) for key, item in value.items() if key not in (TARGET, PARTIAL)}
    if TARGET not in value:
        return made
    target = code.import_target(value[TARGET])
    return partial(target, **made) if value.get(PARTIAL) else target(**made)
