"""The DeepSpeed engine of a run: its config from ours, and whole fp32 weights back out of it."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from hpc.jobs.run.elastic import Layout
from hpc.jobs.spec.config import RunConfig, TrainConfig
from hpc.jobs.spec.deepspeed_keys import deepspeed_settings
from hpc.models.precision import check_precision, keeps_batch_statistics
from hpc.models.recomputation import recompute_blocks
from hpc.optim.optimizers import OptimizerConfig
from hpc.train.compiled import compile_training
from hpc.train.distributed import World, computes_in_bf16


def deepspeed_config(
    run: RunConfig, optim: OptimizerConfig, bf16: bool, world_size: int
) -> dict[str, Any]:
    """The config of `deepspeed.initialize`; a key that is not here keeps DeepSpeed's default.

    The run's own keys, under `deepspeed`, stand above Lockgate's choices.

    ZeRO partitions optimizer states, gradients and parameters in its stages 1, 2 and 3
    (https://arxiv.org/abs/1910.02054).
    """
    batch = run.micro_batch_size * run.gradient_accumulation_steps * world_size
    typed = deepspeed_settings(run.deepspeed, run.zero_stage)
    zero = {
        "stage": run.zero_stage,
        "overlap_comm": False,
        "reduce_scatter": True,
        **optim.zero_settings(run.zero_stage),
        **typed.pop("zero_optimization", {}),
    }
    return {
        # Any torch optimizer can be named, and Muon is handed over as an object; an offloaded one
        # too, where DeepSpeed would only take its own, which is compiled from C++.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **typed,
        "train_batch_size": batch,
        "train_micro_batch_size_per_gpu": run.micro_batch_size,
        "gradient_accumulation_steps": run.gradient_accumulation_steps,
        "gradient_clipping": run.gradient_clipping,  # left out, DeepSpeed clips at 1
        "bf16": {"enabled": bf16},
        "zero_optimization": zero,
        "steps_per_print": 2**31 - 1,  # the loop prints
        "wall_clock_breakdown": False,
    }


def start(config: TrainConfig, model: nn.Module, world: World, load_universal: bool = False) -> Any:
    """The engine that trains `model` under `config`; a collective call. Raises `ConfigError`.

    With `load_universal` it loads universal checkpoints, and no others.
    """
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    run, optim = config.run, config.optim
    check_precision(run.precision, model)
    if run.activation_checkpointing:
        recompute_blocks(model)
    model = model.to(world.device)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optim.build(model),
        config={
            **deepspeed_config(run, optim, uses_bf16(run, model, world), world.size),
            "checkpoint": {"load_universal": load_universal},
        },
        dist_init_required=False,
    )
    if run.compile:
        compile_training(engine, world.device)
    return engine


def uses_bf16(run: RunConfig, model: nn.Module, world: World) -> bool:
    """True if this run computes in bf16 (with fp32 master weights); the same on every rank."""
    if run.precision != "auto":
        return run.precision == "bf16"
    if keeps_batch_statistics(model):
        return False
    able = world.total([float(computes_in_bf16(world.device))])[0]
    return able == world.size


def base_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The optimizer inside of DeepSpeed's, which holds this rank's part of the state."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def layout_of(engine: Any, run: RunConfig, world: World) -> Layout:
    """The way in which the engine's state lies over the ranks; the same on each."""
    inner = base_optimizer(engine)
    names = {name for state in inner.state.values() for name in state}
    if any(group.get("use_muon") for group in inner.param_groups):
        names.add("momentum_buffer")  # in ZeRO-3 DeepSpeed keeps it elsewhere
    return Layout(
        world_size=world.size,
        zero_stage=run.zero_stage,
        micro_batch_size=run.micro_batch_size,
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        optimizer_state=tuple(sorted(names)),
    )


def engine_summary(engine: Any, world: World) -> str:
    """One line for the log: parameters, precision, ZeRO stage, ranks and threads."""
    count = sum(parameter_shape(parameter).numel() for parameter in engine.module.parameters())
    exactness = "bf16 with fp32 master weights" if engine.bfloat16_enabled() else "fp32"
    return (
        f"{count:,} parameters, {exactness}, ZeRO-{engine.zero_optimization_stage()}, "
        f"{world.size} ranks on {world.device.type}, {torch.get_num_threads()} threads each"
    )


def whole_weights(engine: Any) -> dict[str, Tensor]:
    """All weights in fp32 on the CPU, put together from the ranks' parts; a collective call.

    The names are those of `state_dict`: a weight that two modules share is there twice.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    weights: dict[str, Tensor] = {}
    for name, parameter in engine.module.named_parameters(remove_duplicate=False):
        full = safe_get_full_fp32_param(parameter)
        full = parameter if full is None else full  # without ZeRO the parameter is the master
        weights[name] = (
            full.detach().to("cpu", torch.float32, copy=True).view(parameter_shape(parameter))
        )
    saved = engine.module.state_dict().keys()  # a buffer may be left out of it
    for name, buffer in engine.module.named_buffers():
        if name in saved:
            weights[name] = buffer.detach().to("cpu", copy=True)
    return weights


def parameter_shape(parameter: nn.Parameter) -> torch.Size:
    """The shape of the whole parameter, of which ZeRO-3 keeps a part."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 keeps it apart
