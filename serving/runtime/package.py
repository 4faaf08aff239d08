"""Open the model of a package's version folder, whichever kind it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from . import flights_transform, lm_model
from .flights_model import FlightsModel
from .lm_model import LmModel

MODELS: dict[str, type[FlightsModel] | type[LmModel]] = {
    flights_transform.KIND: FlightsModel,
    lm_model.KIND: LmModel,
}


def open_model(
    version_dir: Path, settings: Mapping[str, str] | None = None
) -> FlightsModel | LmModel:
    """The model that `transform.json` in `version_dir` says this is.

    `settings` are the parameters of config.pbtxt. Raises ValueError for an unknown kind.
    """
    text = (Path(version_dir) / "transform.json").read_text(encoding="utf-8")
    kind = json.loads(text).get("kind")
    if kind not in MODELS:
        raise ValueError(f"{version_dir} has a transform of kind {kind!r}; known: {list(MODELS)}")
    return MODELS[kind].load(version_dir, settings)
