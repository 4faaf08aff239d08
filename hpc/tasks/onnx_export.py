"""Export a torch module to ONNX, and refuse an export that does not compute what torch computes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import kernels
from serving.runtime.session import open_session

OPSET = 20
ATOL, RTOL = 2e-4, 2e-3
"""fp32 sums in another order, through a few layers: some ulps of the largest term."""


class ExportRefused(RuntimeError):
    """The ONNX model is not the torch model; says which output is off, and by how much."""


def export_onnx(
    module: nn.Module,
    examples: Sequence[Mapping[str, Tensor]],
    path: Path,
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `module` (in eval mode, fp32, on the CPU) to `path` and check it on each of `examples`.

    `examples` are the module's keyword arguments; the first one traces it. `dynamic` names the free
    dimensions of each input. Raises `ExportRefused` when an output differs; the file is then gone.
    """
    before = kernels.use("torch")  # ONNX knows plain torch operations only
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("onnxscript").setLevel(logging.ERROR)
            shapes = {
                name: dict.fromkeys(dynamic.get(name, {}), torch.export.Dim.DYNAMIC)
                for name in examples[0]
            }
            program = torch.onnx.export(
                module,
                (),
                kwargs=dict(examples[0]),
                input_names=list(examples[0]),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            onnx.save(_plain(program.model_proto, metadata or {}), path)
            _compare(module, examples, path, outputs)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        kernels.use(before)


def _plain(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Without what the exporter notes about this machine (paths, stack traces), with `metadata`."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
        value.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for function in model.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = ""
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return model


def _compare(
    module: nn.Module,
    examples: Sequence[Mapping[str, Tensor]],
    path: Path,
    outputs: Sequence[str],
) -> None:
    session = open_session(path)
    for number, example in enumerate(examples):
        wanted = module(**example)
        wanted = [wanted] if isinstance(wanted, Tensor) else list(wanted)
        found = session.run(list(outputs), {name: one.numpy() for name, one in example.items()})
        for name, torch_value, onnx_value in zip(outputs, wanted, found, strict=True):
            expected = torch_value.numpy()
            if expected.shape != onnx_value.shape:
                raise ExportRefused(
                    f"{name} of the ONNX model has shape {list(onnx_value.shape)} on example "
                    f"{number}; torch gives {list(expected.shape)}"
                )
            if not np.allclose(onnx_value, expected, rtol=RTOL, atol=ATOL):
                worst = float(np.abs(onnx_value - expected).max())
                raise ExportRefused(
                    f"{name} of the ONNX model is off by {worst:.3g} on example {number} "
                    f"(allowed: {ATOL:g} + {RTOL:g} of the value). Nothing was published."
                )
