"""The torch layout of a version folder: a module's settings, weights and own code.

The code is the whole top-level package or module of each target of `model.*`, as this process
imported it: a run's project out of its snapshot. Installed libraries are required, not copied.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from conf.plugin import OWN_PACKAGES
from hpc.models.build import model_settings
from hpc.tasks.module.data import model_outputs
from hpc.tasks.onnx_export import ExportRefused
from serving.artifact.digest import canonical_json
from serving.runtime.package import PREFIX
from serving.runtime.torch_model import MODULE, WEIGHTS, TorchModel, target_names

RUNTIME = "lockgate_runtime.torch_model.TorchModel"
LIBRARIES = ("torch", "safetensors")
"""Libraries that the runtime class itself imports."""
TAKEN = ("model", PREFIX.rstrip("."))
"""Names in a version folder that are Triton's and the runtime's."""


def write_module(model: nn.Module, outputs: Sequence[str], version: Path) -> tuple[str, ...]:
    """Add `model`, in fp32 on the CPU, with the names of its `outputs` to the folder `version`.

    Returns the paths there that are its own code, sorted. Raises `ExportRefused` for code that
    cannot ride in a package.
    """
    settings = model_settings(model)
    content = {"model": settings.node, "sizes": settings.sizes, "outputs": list(outputs)}
    (version / MODULE).write_bytes(canonical_json(content))
    save_model(model, str(version / WEIGHTS))
    names = {target.partition(".")[0] for target in target_names(settings.node)}
    code: list[str] = []
    for name in sorted(names):
        if not _is_installed(name):
            code += _copy_code(name, version)
    return tuple(sorted(code))


def check_equal(
    model: nn.Module, served: TorchModel, examples: Iterable[Mapping[str, Tensor]]
) -> None:
    """Raise `ExportRefused` unless `served` gives bit for bit what `model` gives on `examples`."""
    for number, example in enumerate(examples):
        with torch.no_grad():
            wanted = model_outputs(model, list(example.values()))
        found = served({name: tensor.numpy() for name, tensor in example.items()})
        for (name, array), tensor in zip(found.items(), wanted, strict=True):
            if not np.array_equal(array, tensor.numpy(), equal_nan=array.dtype.kind == "f"):
                raise ExportRefused(
                    f"{name} of the packaged module is not what the trained one gives on example "
                    f"{number}: its forward depends on more than its weights and model.* (chance, "
                    "a file, a global). Nothing was published."
                )


def required_libraries(model: nn.Module, served: TorchModel) -> dict[str, str]:
    """The libraries that `served`, a packaged `model`, imports, from this environment's release on.

    Raises `ExportRefused` for an import that a serving host cannot have.
    """
    wanted = dict.fromkeys(LIBRARIES, "the runtime")
    for module in served.code.modules.values():
        if module.__file__:
            wanted |= dict.fromkeys(_imports(Path(module.__file__)), module.__name__)
    for target in target_names(model_settings(model).node):
        wanted[target.partition(".")[0]] = "model._target_"
    distributions = metadata.packages_distributions()
    found: dict[str, str] = {}
    for name, importer in wanted.items():
        if name in served.code.names or name in sys.stdlib_module_names:
            continue
        if name in OWN_PACKAGES:
            raise ExportRefused(
                f"{importer} imports {name}, which is Lockgate's and on no serving host. Keep what "
                "a served module needs in its own package. Nothing was published."
            )
        if name in distributions:
            library = sorted(distributions[name])[0]
            release = re.match(r"\d+(\.\d+)?", metadata.version(library))
            found[library] = f">={release[0] if release else 0}"
        elif find_spec(name) is not None:
            raise ExportRefused(
                f"{importer} imports {name}, which is neither an installed library nor inside "
                f"{', '.join(sorted(served.code.names))}: move it there. Nothing was published."
            )
    return dict(sorted(found.items()))


def _is_installed(name: str) -> bool:
    """True when the top-level `name` is of the standard library or an installed library."""
    if name in sys.stdlib_module_names:
        return True
    libraries = [Path(sysconfig.get_path(one)).resolve() for one in ("purelib", "platlib")]
    return any(_place(name).is_relative_to(one) for one in libraries)


def _place(name: str) -> Path:
    """The folder of the package `name`, or the file of the module."""
    module = import_module(name)
    if hasattr(module, "__path__"):
        return Path(next(iter(module.__path__))).resolve()
    return Path(str(module.__file__)).resolve()


def _copy_code(name: str, version: Path) -> Iterator[str]:
    if name in OWN_PACKAGES:
        raise ExportRefused(
            f"model._target_ is in {name}, which is Lockgate's and on no serving host; a module "
            "that is packaged as torch code must be the project's own. Nothing was published."
        )
    if name in TAKEN:
        raise ExportRefused(
            f"model._target_ is in {name!r}, a name that a package needs for itself; rename that "
            "module. Nothing was published."
        )
    place = _place(name)
    root = place.parent
    for source in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        path = source.relative_to(root)
        (version / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, version / path)
        yield path.as_posix()


def _imports(path: Path) -> set[str]:
    """Top-level names that the file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found
