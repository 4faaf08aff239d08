"""How a task's model is served: the schema of `task.serve` in `conf/task/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf import ConfigError


@dataclass(frozen=True)
class FlightsServe:
    """See `serving.triton.model_config` for what the batching keys mean."""

    model: str = "flights"
    """Name of the model in Triton and in the registry."""
    max_batch_size: int = 1024
    preferred_batch_size: int = 8
    queue_delay_us: int = 100
    instances: int = 1
    threads: int = 1
    """Threads of one instance's onnxruntime."""


@dataclass(frozen=True)
class LmServe:
    """A text is a request of its own: no batching."""

    model: str = "lm"
    """Name of the model in Triton and in the registry."""
    instances: int = 1
    threads: int = 1
    """Threads of one instance's onnxruntime."""
    max_text_bytes: int = 65_536
    """A longer text is refused."""
    max_new_tokens: int = 256
    """A request for more is refused."""


def serve_config(schema: type[Any], cfg: DictConfig) -> Any:
    """`cfg.task.serve` over the defaults of `schema`. Raises `ConfigError` naming the key."""
    given = OmegaConf.to_container(cfg.task, resolve=True)
    assert isinstance(given, dict)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), given.get("serve") or {})
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        known = ", ".join(one.name for one in fields(schema))
        reason = str(error).splitlines()[0]
        raise ConfigError(f"task.serve: {reason}. Known keys: {known}") from error
