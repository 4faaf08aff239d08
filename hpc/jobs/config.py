"""The schema of `conf/train.yaml` and `conf/cluster/*.yaml`: types and limits, checked at submit.

What a task, a model or an optimizer takes is checked beside that component, in the job.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import ConfigError


@dataclass
class ClusterConfig:
    """Where a job runs and how big it is. See `conf/cluster/box.yaml` for each key's meaning."""

    kind: str = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    mem_gb: float | None = None
    timeout_min: int = 60
    signal_delay_s: int = 90
    max_requeues: int = 8
    exclude: str | None = None
    slurm_conf: str | None = None
    scratch: str = "/tmp"
    pass_environment: list[str] = field(default_factory=list)
    additional_parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("slurm", "local"):
            raise ConfigError(f"cluster.kind={self.kind}: there is slurm and local")
        for name in ("nodes", "tasks_per_node", "cpus_per_task", "timeout_min"):
            _at_least(f"cluster.{name}", getattr(self, name), 1)
        for name in ("gpus_per_node", "signal_delay_s", "max_requeues"):
            _at_least(f"cluster.{name}", getattr(self, name), 0)
        if self.kind == "local" and self.nodes != 1:
            raise ConfigError(
                f"cluster.nodes={self.nodes}: the local cluster is this one machine; "
                "ask for ranks instead: cluster.tasks_per_node=N"
            )
        if self.signal_delay_s >= self.timeout_min * 60:
            raise ConfigError(
                f"cluster.signal_delay_s={self.signal_delay_s}: the signal to save comes before "
                f"the job starts; it must be less than timeout_min ({self.timeout_min} min)"
            )

    @property
    def ranks(self) -> int:
        """World size of one attempt."""
        return self.nodes * self.tasks_per_node


@dataclass
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

    def __post_init__(self) -> None:
        positive = (
            "steps micro_batch_size gradient_accumulation_steps log_interval "
            "checkpoint_interval keep_checkpoints"
        )
        for name in positive.split():
            _at_least(name, getattr(self, name), 1)
        for name in ("seed", "eval_interval", "gradient_clipping"):
            _at_least(name, getattr(self, name), 0)
        _one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        _one_of("zero_stage", self.zero_stage, (0, 1, 2, 3))
        _one_of("kernels", self.kernels, ("auto", "triton", "torch"))


def cluster_config(config: DictConfig) -> ClusterConfig:
    """`config.cluster` as a checked dataclass; raises `ConfigError` naming the key."""
    return _checked(ClusterConfig, config.cluster, "cluster.")


def run_config(config: DictConfig) -> RunConfig:
    """The top-level keys of a composed training config; raises `ConfigError` naming the key."""
    return _checked(RunConfig, {key.name: config[key.name] for key in fields(RunConfig)}, "")


def _checked(schema: type[Any], config: Any, prefix: str) -> Any:
    try:
        if isinstance(config, DictConfig):  # resolved here: a copy has lost the tree it points into
            config = OmegaConf.to_container(config, resolve=True)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))
    except OmegaConfBaseException as error:
        key = f"{prefix}{getattr(error, 'full_key', None) or ''}".rstrip(".")
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{key}: {reason}") from error


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(f"{name}={value}: must be at least {least}")


def _one_of(name: str, value: object, valid: tuple[object, ...]) -> None:
    if value not in valid:
        raise ConfigError(f"{name}={value}: choose one of {', '.join(map(str, valid))}")
