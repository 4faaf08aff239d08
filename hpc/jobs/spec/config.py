"""The typed form of `conf/train.yaml`: types and limits of every key, checked at submit.

    training = train_config(compose("train", ["task=NAME"]))
    training.run.steps, training.optim.lr, training.task.serve.model

A task, a model, an optimizer and a dataset are plug-ins (`_target_`), each with its own dataclass
beside its code. Making them imports no torch, unless a target is not Lockgate's own.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig

from conf.errors import ConfigError
from conf.names import nearest
from conf.plugin import is_own, make_plugin, targets
from conf.schema import TARGET, from_config, plain_values
from hpc.jobs.spec.deepspeed_keys import deepspeed_settings
from hpc.jobs.spec.sending import NOT_FROZEN
from hpc.jobs.spec.store_address import check_store_address
from hpc.models.build import check_model
from hpc.optim.optimizers import OptimizerConfig, optimizer_config
from hpc.optim.schedule import Schedule
from hpc.tasks.task import Task

LARGEST_COUNT = 2**31 - 1
"""Bound of every count, so that products of two stay in 64 bits."""
LARGEST_SEED = 2**63 - 1
"""torch.manual_seed takes 64 bits, and each rank adds its number."""
MOST_PREFETCHED = 1024
"""Bound of the micro-batches that wait in memory."""
LARGEST_SIGNAL_DELAY_S = 65535
"""Bound of sbatch --signal."""
PLUGINS = ("task", "model", "optim")
"""The keys whose values name what is made of them."""
CONTAINER_RUNTIMES = ("oci", "pyxis", "apptainer")


@dataclass(frozen=True)
class ClusterConfig:
    """The place and size of a job. See `conf/cluster/box.yaml` for each key's meaning."""

    kind: str
    partition: str | None
    account: str | None
    qos: str | None
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int
    mem_gb: float | None
    timeout_min: int
    signal_delay_s: int
    max_requeues: int
    exclude: str | None
    slurm_conf: str | None
    scratch: str
    pass_environment: list[str]
    additional_parameters: dict[str, Any]
    # As in RunConfig: the values that do as was done before these keys.
    sweep_parallel: int | None = None
    preflight_s: int = 0
    container: str | None = None
    container_runtime: str = "oci"
    container_python: str | None = None
    container_mounts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        counts = ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "max_requeues")
        _at_least(self, 1, "nodes", "tasks_per_node", "cpus_per_task", "timeout_min")
        _at_least(self, 0, "gpus_per_node", "signal_delay_s", "max_requeues", "preflight_s")
        _at_most(self, LARGEST_COUNT, *counts, "timeout_min")
        _at_most(self, LARGEST_SIGNAL_DELAY_S, "signal_delay_s")
        _one_of("container_runtime", self.container_runtime, CONTAINER_RUNTIMES)
        if self.sweep_parallel is not None:
            _at_least(self, 1, "sweep_parallel")
        if self.mem_gb is not None and not 1 <= self.mem_gb * 1024 <= LARGEST_COUNT:
            raise ValueError(
                f"mem_gb={self.mem_gb}: must be above 0, from 0.001 (1 MB) to {LARGEST_COUNT >> 10}"
                ", or null for no limit"
            )
        if self.kind == "local" and self.nodes != 1:
            raise ValueError(
                f"nodes={self.nodes}: the local cluster is this one machine; "
                "ask for ranks instead: cluster.tasks_per_node=N"
            )
        if self.signal_delay_s >= self.timeout_min * 60:
            raise ValueError(
                f"signal_delay_s={self.signal_delay_s}: the signal to save comes before "
                f"the job starts; it must be less than timeout_min ({self.timeout_min} min)"
            )

    @property
    def ranks(self) -> int:
        """World size of one attempt."""
        return self.nodes * self.tasks_per_node


@dataclass(frozen=True)
class RunConfig:
    """The top-level keys of one training run. See `conf/train.yaml` for each key's meaning."""

    seed: int
    steps: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_clipping: float
    precision: str
    zero_stage: int
    kernels: str
    log_interval: int
    eval_interval: int
    checkpoint_interval: int
    keep_checkpoints: int
    # Specs of older runs lack these: a default is the value that does as was done before the key.
    compile: bool = False
    activation_checkpointing: bool = False
    prefetch_batches: int = 0
    deepspeed: dict[str, Any] = field(default_factory=dict)
    checkpoint_async: bool = False
    hang_timeout_s: float | None = None
    keep_every: int = 0
    keep_best: int = 0
    init_from: str | None = None
    checkpoint_store: str | None = None

    def __post_init__(self) -> None:
        intervals = ("eval_interval", "checkpoint_interval")
        _at_least(self, 1, "steps", "micro_batch_size", "gradient_accumulation_steps")
        _at_least(self, 1, "log_interval", "keep_checkpoints")
        _at_least(self, 0, *intervals, "keep_every", "keep_best")
        _at_least(self, 0, "seed", "gradient_clipping")
        _at_most(self, LARGEST_COUNT, "steps", "micro_batch_size", "gradient_accumulation_steps")
        _at_most(self, LARGEST_COUNT, *intervals, "log_interval", "keep_checkpoints")
        _at_most(self, LARGEST_COUNT, "keep_every", "keep_best")
        _at_most(self, LARGEST_SEED, "seed")
        if self.hang_timeout_s is not None and not 1 <= self.hang_timeout_s <= LARGEST_COUNT:
            raise ValueError(
                f"hang_timeout_s={self.hang_timeout_s:g}: must be from 1 to {LARGEST_COUNT} "
                "seconds, or null to turn it off"
            )
        _one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        _one_of("zero_stage", self.zero_stage, (0, 1, 2, 3))
        _one_of("kernels", self.kernels, ("auto", "triton", "torch"))
        _at_least(self, 0, "prefetch_batches")
        _at_most(self, MOST_PREFETCHED, "prefetch_batches")
        if self.checkpoint_store is not None:
            check_store_address(self.checkpoint_store)
        deepspeed_settings(self.deepspeed, self.zero_stage)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run, typed. `model` stays a mapping: a task makes it."""

    run: RunConfig
    cluster: ClusterConfig
    task: Task
    model: Mapping[str, Any]
    optim: OptimizerConfig
    schedule: Schedule


def train_config(config: DictConfig) -> TrainConfig:
    """A composed training config, or that of a spec, as checked dataclasses.

    Raises `ConfigError` naming the key. Imports a target's module, and with it torch where the
    target is not Lockgate's own; see `foreign_targets`.
    """
    run, cluster, schedule = run_config(config), cluster_config(config), schedule_config(config)
    model = plugin_values(config, "model")
    task = make_plugin(plugin_values(config, "task"), "task")
    if not isinstance(task, Task):
        raise ConfigError(
            f"task.{TARGET}={config.task[TARGET]} is not a task: it lacks "
            f"{', '.join(one for one in sorted(TASK_METHODS) if not hasattr(task, one))}"
        )
    optim = {
        key: value for key, value in plugin_values(config, "optim").items() if key != "schedule"
    }
    optimizer = optimizer_config(optim)
    made = check_model(model, task.sizes, task.name)
    optimizer.check(made, run.gradient_clipping, run.zero_stage)
    check_zero_settings(run, optimizer)
    return TrainConfig(run, cluster, task, model, optimizer, schedule)


def check_zero_settings(run: RunConfig, optimizer: OptimizerConfig) -> None:
    """Raise `ConfigError` for a DeepSpeed key that the optimizer needs otherwise than it is set."""
    typed = deepspeed_settings(run.deepspeed, run.zero_stage).get("zero_optimization", {})
    for key, needed in optimizer.zero_settings(run.zero_stage).items():
        if typed.get(key, needed) != needed:
            raise ConfigError(
                f"deepspeed.zero_optimization.{key}={str(typed[key]).lower()}: "
                f"{type(optimizer).__name__} needs {str(needed).lower()} with "
                f"zero_stage={run.zero_stage}; leave the key out"
            )


TASK_METHODS = {name for name in vars(Task) if not name.startswith("_")} | set(Task.__annotations__)


def cluster_config(config: DictConfig) -> ClusterConfig:
    """`config.cluster` as a checked dataclass; raises `ConfigError` naming the key."""
    return from_config(ClusterConfig, config.cluster, "cluster")


def run_config(config: DictConfig) -> RunConfig:
    """The top-level keys of a composed training config; raises `ConfigError` naming the key."""
    names = [one.name for one in fields(RunConfig)]
    known = [*names, *PLUGINS, *NOT_FROZEN, "site", "cluster"]
    for key in map(str, config):
        if key not in known:
            raise ConfigError(f"{key}: there is no such key in train. {nearest(key, known)}")
    values = {name: plain_values(config[name], name) for name in names if name in config}
    return from_config(RunConfig, values, "")


def with_whole_numbers(
    plain: Mapping[str, Any], run: RunConfig, cluster: ClusterConfig
) -> dict[str, Any]:
    """`plain` with the ints of its typed form: steps=1e3 and steps=1000 are one spec.

    A key that it lacks stays out: the code of an older run would refuse it.
    """
    of_cluster = plain["cluster"]
    return {
        **plain,
        **_ints(run, plain),
        "cluster": {**of_cluster, **_ints(cluster, of_cluster)},
    }


def schedule_config(config: DictConfig) -> Schedule:
    """`config.optim.schedule` as a checked dataclass; raises `ConfigError` naming the key."""
    values = plugin_values(config, "optim")
    if "schedule" not in values:
        raise ConfigError("optim.schedule is missing; see conf/optim/adamw.yaml")
    return from_config(Schedule, values["schedule"], "optim.schedule")


def plugin_values(config: DictConfig, key: str) -> dict[str, Any]:
    """The plug-in at `key` as plain values. Raises `ConfigError` when none was chosen."""
    values = plain_values(config.get(key), key)
    if not isinstance(values, dict) or TARGET not in values:
        raise ConfigError(
            f"{key}: nothing was chosen that has a {TARGET}; add {key}=NAME (see conf/{key})"
        )
    return values


def foreign_targets(config: DictConfig) -> list[str]:
    """The keys of task, model and optim whose target is not Lockgate's own: they import torch."""
    found = (pair for key in PLUGINS for pair in targets(plain_values(config.get(key), key), key))
    return [key for key, target in found if not is_own(target)]


def _at_least(config: object, least: float, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"{name}={getattr(config, name)}: must be at least {least}")


def _at_most(config: object, most: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) > most:
            raise ValueError(f"{name}={getattr(config, name)}: must be at most {most}")


def _ints(config: object, names: Container[str]) -> dict[str, int]:
    return {
        name: value for name, value in vars(config).items() if type(value) is int and name in names
    }


def _one_of(name: str, value: object, valid: Iterable[object]) -> None:
    if value not in valid:
        raise ValueError(f"{name}={value}: choose one of {', '.join(map(str, valid))}")
