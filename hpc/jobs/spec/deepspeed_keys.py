"""DeepSpeed's keys that a run may set under `deepspeed`, checked at submit without DeepSpeed.

    lockgate train task=NAME +deepspeed.zero_optimization.overlap_comm=true

The table is that of the DeepSpeed in the lock file; a test holds each key, type and bound of it to
DeepSpeed's own config models. What Lockgate's keys decide is refused here with their names.
See https://www.deepspeed.ai/docs/config-json/
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from conf.errors import ConfigError
from conf.names import nearest
from conf.schema import SchemaError, build

ROOT = "deepspeed"
ZERO = "zero_optimization"


@dataclass(frozen=True)
class KeyType:
    """The values of a key, from `least` to `most`, and the lowest ZeRO stage that reads it."""

    kind: Any
    least: float | None = None
    most: float | None = None
    zero_stage: int = 0


_SWITCH, _COUNT = KeyType(bool, zero_stage=1), KeyType(int, 0, zero_stage=1)
_SWITCH_3, _COUNT_3 = KeyType(bool, zero_stage=3), KeyType(int, 0, zero_stage=3)
_SHARE = KeyType(float, 0, 1, zero_stage=1)
_DEVICE = Literal["none", "cpu", "nvme"]

KEYS: Mapping[str, KeyType] = {
    "communication_data_type": KeyType(Literal["fp16", "bf16", "fp32"]),
    "prescale_gradients": KeyType(bool),
    "gradient_predivide_factor": KeyType(float),
    "zero_force_ds_cpu_optimizer": KeyType(bool),
    "aio.block_size": KeyType(int, 1),
    "aio.queue_depth": KeyType(int, 1),
    "aio.intra_op_parallelism": KeyType(int, 1),
    "aio.single_submit": KeyType(bool),
    "aio.overlap_events": KeyType(bool),
    "aio.use_gds": KeyType(bool),
    f"{ZERO}.overlap_comm": _SWITCH,
    f"{ZERO}.contiguous_gradients": _SWITCH,
    f"{ZERO}.reduce_scatter": _SWITCH,
    f"{ZERO}.reduce_bucket_size": KeyType(int, 1, zero_stage=1),
    f"{ZERO}.use_multi_rank_bucket_allreduce": _SWITCH,
    f"{ZERO}.allgather_partitions": _SWITCH,
    f"{ZERO}.allgather_bucket_size": _COUNT,
    f"{ZERO}.round_robin_gradients": _SWITCH,
    f"{ZERO}.parameter_alignment": _SWITCH,
    f"{ZERO}.ignore_unused_parameters": _SWITCH,
    f"{ZERO}.sub_group_size": _COUNT_3,
    f"{ZERO}.stage3_prefetch_bucket_size": _COUNT_3,
    f"{ZERO}.stage3_param_persistence_threshold": _COUNT_3,
    f"{ZERO}.stage3_model_persistence_threshold": _COUNT_3,
    f"{ZERO}.stage3_max_live_parameters": _COUNT_3,
    f"{ZERO}.stage3_max_reuse_distance": _COUNT_3,
    f"{ZERO}.stage3_module_granularity_threshold": KeyType(int, zero_stage=3),
    f"{ZERO}.stage3_use_all_reduce_for_fetch_params": _SWITCH_3,
    f"{ZERO}.stage3_allgather_sequential": _SWITCH_3,
    f"{ZERO}.zero_hpz_partition_size": _COUNT_3,
    f"{ZERO}.zero_quantized_weights": _SWITCH_3,
    f"{ZERO}.zero_quantized_gradients": _SWITCH_3,
    f"{ZERO}.memory_efficient_linear": _SWITCH_3,
    f"{ZERO}.log_trace_cache_warnings": _SWITCH_3,
    f"{ZERO}.enable_sanity_checks": _SWITCH,
    f"{ZERO}.offload_optimizer.device": KeyType(_DEVICE, zero_stage=1),
    f"{ZERO}.offload_optimizer.nvme_path": KeyType(str, zero_stage=3),
    f"{ZERO}.offload_optimizer.buffer_count": _COUNT,
    f"{ZERO}.offload_optimizer.pin_memory": _SWITCH,
    f"{ZERO}.offload_optimizer.pipeline_read": _SWITCH,
    f"{ZERO}.offload_optimizer.pipeline_write": _SWITCH,
    f"{ZERO}.offload_optimizer.fast_init": _SWITCH,
    f"{ZERO}.offload_optimizer.ratio": KeyType(float, 0, 1, zero_stage=3),
    f"{ZERO}.offload_optimizer.cpuadam_cores_perc": _SHARE,
    f"{ZERO}.offload_param.device": KeyType(_DEVICE, zero_stage=3),
    f"{ZERO}.offload_param.nvme_path": KeyType(str, zero_stage=3),
    f"{ZERO}.offload_param.buffer_count": _COUNT_3,
    f"{ZERO}.offload_param.buffer_size": _COUNT_3,
    f"{ZERO}.offload_param.max_in_cpu": _COUNT_3,
    f"{ZERO}.offload_param.pin_memory": _SWITCH_3,
}

OURS: Mapping[str, str] = {
    "train_batch_size": "micro_batch_size, gradient_accumulation_steps and the number of ranks",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "managed_gradient_accumulation": "gradient_accumulation_steps",
    "gradient_clipping": "gradient_clipping",
    "bf16": "precision",
    "bfloat16": "precision",
    "fp16": "precision",
    "amp": "precision",
    "torch_autocast": "precision",
    "data_types": "precision",
    "optimizer": "optim",
    "scheduler": "optim.schedule",
    "zero_allow_untested_optimizer": "optim",
    "activation_checkpointing": "activation_checkpointing",
    "compile": "compile",
    "checkpoint": "checkpoint_interval and keep_checkpoints",
    "steps_per_print": "log_interval",
    "wall_clock_breakdown": "log_interval",
    f"{ZERO}.stage": "zero_stage",
}
"""Keys of DeepSpeed that a key of Lockgate decides."""


def deepspeed_settings(node: Mapping[str, Any], zero_stage: int) -> dict[str, Any]:
    """The mapping `deepspeed` of a config as DeepSpeed takes it: nested, each value of its type.

    Raises `ConfigError`, naming the key, for one that is not there or that Lockgate decides, a
    value of another type or out of its bounds, and a setting that the run's ZeRO stage leaves out.
    """
    settings: dict[str, Any] = {}
    for key, value in _leaves(node):
        checked = _checked(key, value, zero_stage)
        *path, last = key.split(".")
        place = settings
        for part in path:
            place = place.setdefault(part, {})
        place[last] = checked
    for part in ("offload_optimizer", "offload_param"):
        offload = settings.get(ZERO, {}).get(part, {})
        name = f"{ROOT}.{ZERO}.{part}"
        if offload and "device" not in offload:
            raise ConfigError(f"{name}.device is missing: without it nothing is offloaded")
        if offload.get("device") == "nvme" and not offload.get("nvme_path"):
            raise ConfigError(f"{name}.nvme_path is missing: the folder that device=nvme writes to")
    return settings


def _checked(key: str, value: object, zero_stage: int) -> Any:
    """`value` in the type of `key`; both as in the config. Raises `ConfigError`."""
    place = f"{ROOT}.{key}"
    parts = key.split(".")
    for depth in range(1, len(parts) + 1):
        if own := OURS.get(".".join(parts[:depth])):
            raise ConfigError(
                f"{ROOT}.{'.'.join(parts[:depth])}: Lockgate decides this one; set {own} instead"
            )
    if key not in KEYS:
        inside = sorted(name for name in KEYS if name.startswith(f"{key}."))
        if inside:
            raise ConfigError(
                f"{place}: set a key inside it, such as {ROOT}.{inside[0]} ({len(inside)} keys)"
            )
        raise ConfigError(f"{place}: DeepSpeed has no such key that a run may set. {_nearest(key)}")
    allowed = KEYS[key]
    try:
        made = build(allowed.kind, value, place, plugins=True)
    except SchemaError as error:
        raise ConfigError(str(error)) from None
    if allowed.least is not None and made < allowed.least:
        raise ConfigError(f"{place}={value}: must be at least {allowed.least:g}")
    if allowed.most is not None and made > allowed.most:
        raise ConfigError(f"{place}={value}: must be at most {allowed.most:g}")
    if zero_stage < allowed.zero_stage:
        raise ConfigError(
            f"{place} with zero_stage={zero_stage}: DeepSpeed reads it from ZeRO stage "
            f"{allowed.zero_stage} on; set zero_stage={allowed.zero_stage}, or leave it out"
        )
    return made


def _nearest(key: str) -> str:
    """The nearest keys: by the last word, which is what is mistyped, then by the whole."""
    parent, _, last = key.rpartition(".")
    beside = [name.rpartition(".")[2] for name in KEYS if name.rpartition(".")[0] == parent]
    if parent and beside:
        return nearest(last, beside)
    return nearest(key, KEYS)


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(typing.cast("Mapping[str, Any]", value), f"{key}.")
        else:
            yield key, value
