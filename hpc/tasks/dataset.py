"""The kind of a published dataset, from its `transform.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conf.errors import ConfigError


def read_transform(dataset: Path, kind: str, task: str) -> dict[str, Any]:
    """The content of the dataset's `transform.json`, which must be of `kind`.

    Raises `ConfigError` for another kind, naming `task`, the class that takes the dataset.
    """
    path = Path(dataset) / "transform.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"task.dataset: {dataset} has no transform.json ({error})") from error
    if content.get("kind") != kind:
        raise ConfigError(
            f"task.dataset: {Path(dataset).parent.name} is a dataset of kind "
            f"{content.get('kind')!r}, and {task} takes the kind {kind!r}. "
            "Choose another task._target_, or another task.dataset."
        )
    return content
