"""The flights transform: named raw columns in, the two arrays of the model out; frozen in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .errors import InvalidInput
from .features import Angle, Category, Feature, Number, width

KIND = "flights"
NUMPY_KINDS = {"BYTES": "OSU", "INT32": "i", "FP32": "f"}
KINDS: dict[str, type[Category] | type[Number] | type[Angle]] = {
    "category": Category,
    "number": Number,
    "angle": Angle,
}


@dataclass(frozen=True)
class FlightsTransform:
    """Features in a fixed order. Fitted once, on the training split, and never again."""

    features: tuple[Feature, ...]

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(one for one in self.features if isinstance(one, Category))

    @property
    def numbers(self) -> tuple[Number | Angle, ...]:
        return tuple(one for one in self.features if not isinstance(one, Category))

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        """Ids of each category, the unknown one included."""
        return tuple(len(category.vocabulary) + 1 for category in self.categories)

    @property
    def number_columns(self) -> int:
        return sum(width(number) for number in self.numbers)

    def columns(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Check names, dtypes and shapes; every column as [batch].

        A column may come as [batch] or [batch, 1]. Raises `InvalidInput` by name.
        """
        names = {feature.name for feature in self.features}
        if set(raw) != names:
            missing, extra = sorted(names - set(raw)), sorted(set(raw) - names)
            raise InvalidInput(f"inputs missing: {missing or 'none'}; not known: {extra or 'none'}")
        found = {
            feature.name: _column(feature, np.asarray(raw[feature.name]))
            for feature in self.features
        }
        lengths = {len(column) for column in found.values()}
        if len(lengths) != 1:
            raise InvalidInput(f"inputs have different batch sizes: {sorted(lengths)}")
        return found

    def encode(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raw columns -> `categories` int64 [batch, C] and `numbers` float32 [batch, N].

        Each row depends on itself alone. Raises `InvalidInput`.
        """
        columns = self.columns(raw)
        return {
            "categories": np.stack([c.encode(columns[c.name]) for c in self.categories], axis=1),
            "numbers": np.concatenate([n.encode(columns[n.name]) for n in self.numbers], axis=1),
        }

    def to_json(self) -> str:
        """Canonical JSON: equal transforms give equal bytes."""
        kind_of = {cls: kind for kind, cls in KINDS.items()}
        features = [{"kind": kind_of[type(one)], **asdict(one)} for one in self.features]
        text = json.dumps({"kind": KIND, "features": features}, sort_keys=True, indent=2)
        return text + "\n"


def from_json(text: str) -> FlightsTransform:
    """The inverse of `to_json`. Raises ValueError for another kind of transform."""
    content = json.loads(text)
    if content.get("kind") != KIND:
        raise ValueError(f"this is a transform of kind {content.get('kind')!r}, not {KIND!r}")
    return FlightsTransform(tuple(_feature(dict(one)) for one in content["features"]))


def load(path: Path) -> FlightsTransform:
    """Read a `transform.json`."""
    return from_json(Path(path).read_text(encoding="utf-8"))


def _feature(fields: dict) -> Feature:
    cls = KINDS[fields.pop("kind")]
    if cls is Category:
        fields["vocabulary"] = tuple(fields["vocabulary"])
    return cls(**fields)


def _column(feature: Feature, raw: np.ndarray) -> np.ndarray:
    wanted = feature.dtype
    sized = wanted == "BYTES" or raw.dtype.itemsize == 4
    if raw.dtype.kind not in NUMPY_KINDS[wanted] or not sized:
        raise InvalidInput(f"{feature.name} has dtype {raw.dtype}; it must be {wanted}")
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1 or len(raw) == 0:
        raise InvalidInput(f"{feature.name} has shape {list(raw.shape)}; it must be [batch, 1]")
    return raw
