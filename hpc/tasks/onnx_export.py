"""Export a torch module to ONNX, and refuse an export that does not compute what torch computes."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import kernels
from conf.errors import LockgateError
from serving.runtime.session import open_session

OPSET = 20
ATOL, RTOL = 2e-4, 2e-3
"""fp32 sums in another order, through a few layers: some ulps of the largest term."""


class ExportRefused(LockgateError):
    """A module has no ONNX form, or one that computes something else; the text names the place."""


class NoOnnxForm(ExportRefused):
    """torch.onnx.export itself cannot express the module; `reason` is that without the advice."""

    def __init__(self, reason: str, advice: str):
        super().__init__(f"{reason}. {advice} Nothing was published.")
        self.reason = reason


def export_onnx(
    module: nn.Module,
    examples: Sequence[Mapping[str, Tensor]],
    path: Path,
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `module` (in eval mode, fp32, on the CPU) to `path` and check it on each of `examples`.

    `examples` hold the module's positional arguments under the names of the ONNX inputs; the first
    one traces it. `dynamic` names the free dimensions of each input. Raises `NoOnnxForm` when the
    module uses what ONNX does not have, `ExportRefused` when an output differs; the file is then
    gone.
    """
    before = kernels.use("torch")  # ONNX has plain torch operations only
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = _exported(module, examples[0], outputs, dynamic)
            onnx.save(_plain(model, metadata or {}), path)
            _compare(module, examples, path, outputs)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        kernels.use(before)


def _exported(
    module: nn.Module,
    example: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, str]],
) -> onnx.ModelProto:
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    free = torch.export.Dim.DYNAMIC
    try:
        program = torch.onnx.export(
            module,
            tuple(example.values()),
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict.fromkeys(dynamic.get(name, {}), free) for name in example),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise _why_not(module, error) from error
    assert program is not None
    return program.model_proto


def _why_not(module: nn.Module, error: BaseException) -> NoOnnxForm:
    """The operator or the line that ONNX has no form for, as a sentence."""
    name = type(getattr(module, "model", module)).__name__  # what a serving wrapper stands around
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = "\n".join(map(str, causes))
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", text)
    if operator:
        return NoOnnxForm(
            f"{name} does not export to ONNX: it uses {operator[1]}, which ONNX does not have",
            "Write that step with other torch operations.",
        )
    lines = str(causes[-1]).strip().splitlines() or [type(causes[-1]).__name__]
    places = re.findall(r'File "([^"]+)", line (\d+)', text)
    where = f" ({Path(places[-1][0]).name}:{places[-1][1]})" if places else ""
    return NoOnnxForm(
        f"{name} does not export to ONNX{where}: {lines[0].rstrip('. ')}",
        "What a forward does may depend on the shapes of its inputs, not on their values.",
    )


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
    fed = {one.name for one in session.get_inputs()}  # an input that decides nothing is left out
    for number, example in enumerate(examples):
        wanted = module(*example.values())
        wanted = [wanted] if isinstance(wanted, Tensor) else list(wanted)
        arrays = {name: one.numpy() for name, one in example.items() if name in fed}
        found = session.run(list(outputs), arrays)
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
