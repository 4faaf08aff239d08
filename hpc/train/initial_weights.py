"""The weights that a run starts with: those of a fresh model, or another run's by init_from."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from hpc.jobs.spec.ancestry import InitialWeights
from hpc.jobs.spec.job_spec import JobSpec
from hpc.jobs.spec.weights_header import check_shapes
from hpc.train.errors import CheckpointError
from serving.artifact.digest import file_sha256


def load_initial_weights(model: nn.Module, initial: InitialWeights) -> None:
    """Put the frozen weights of `initial` into `model`, in place.

    Raises `CheckpointError` for a file that is gone or is not what was frozen, and `ConfigError`
    for weights of another model.
    """
    path = Path(initial.path)
    try:
        actual = file_sha256(path)
    except OSError as error:
        raise CheckpointError(
            f"init_from={initial.words}: {path} cannot be read: {error.strerror}. Submit again "
            "with init_from of a run that is still there."
        ) from error
    if actual != initial.sha256:
        raise CheckpointError(
            f"init_from={initial.words}: {path} is not what was frozen at submit (sha256 "
            f"{actual[:12]}, frozen {initial.sha256[:12]})."
        )
    weights = load_file(path)
    saved = {name: tuple(weight.shape) for name, weight in weights.items()}
    check_shapes(saved, model_shapes(model), initial.words)
    model.load_state_dict(weights)


def check_inherited(spec: JobSpec, step: int) -> None:
    """Raise `CheckpointError` for a resumed run that would begin before its parent's checkpoint."""
    if spec.parent is not None and step < spec.parent.step:
        raise CheckpointError(
            f"this run goes on from {spec.parent.words}, and that checkpoint in its folder is not "
            f"good any more. Make another: lockgate resume {spec.parent.run}"
        )


def model_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each weight and saved buffer of a model, by its name in a checkpoint."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
