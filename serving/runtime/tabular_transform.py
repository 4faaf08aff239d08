"""The tabular transform: named raw columns in, the two arrays of the model out; frozen in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .errors import InvalidInput
from .features import Angle, Category, Feature, Number, is_optional, width

KIND = "tabular"
NUMPY_KINDS = {"BYTES": "OSU", "INT32": "i", "FP32": "f"}
FEATURE_KINDS: dict[str, type[Category] | type[Number] | type[Angle]] = {
    "category": Category,
    "number": Number,
    "angle": Angle,
}


@dataclass(frozen=True)
class Target:
    """The target that the model predicts.

    `kind` is `binary` (served as the probability of 1), `multiclass` (probabilities of `classes`,
    and the likeliest as a label) or `regression` (served in the target's own unit). `output` names
    the served tensor of a binary or regression target. `mean` and `scale` are a regression
    target's on the training split: a network may predict `(value - mean) / scale`, and its export
    undoes that.
    """

    name: str
    kind: str
    output: str
    classes: tuple[str, ...] | None = None
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class TabularTransform:
    """Features in a fixed order, and the target. Fitted once, on the training split.

    `group` is the column of the prepared splits whose equal values belong together, or None.
    """

    features: tuple[Feature, ...]
    target: Target
    group: str | None = None

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
        """Check names, dtypes and shapes; every feature's column as [batch].

        A column may come as [batch] or [batch, 1]. An optional feature may be absent: it is then
        missing in every row. Raises `InvalidInput` by name.
        """
        names = {feature.name for feature in self.features}
        required = {feature.name for feature in self.features if not is_optional(feature)}
        absent, extra = sorted(required - set(raw)), sorted(set(raw) - names)
        if absent or extra:
            raise InvalidInput(f"inputs missing: {absent or 'none'}; not known: {extra or 'none'}")
        found = {
            feature.name: _column(feature, np.asarray(raw[feature.name]))
            for feature in self.features
            if feature.name in raw
        }
        lengths = {len(column) for column in found.values()}
        if len(lengths) != 1:
            raise InvalidInput(
                f"inputs have different batch sizes: {sorted(lengths)}"
                if found
                else "a request needs at least one input"
            )
        (rows,) = lengths
        return {
            feature.name: found.get(feature.name, _missing(feature, rows))
            for feature in self.features
        }

    def encode(self, raw: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raw columns -> `categories` int64 [batch, C] and `numbers` float32 [batch, N].

        C or N may be 0. Each row depends on itself alone. Raises `InvalidInput`.
        """
        columns = self.columns(raw)
        rows = len(next(iter(columns.values())))
        ids = [one.encode(columns[one.name]).reshape(-1, 1) for one in self.categories]
        numbers = [one.encode(columns[one.name]) for one in self.numbers]
        return {
            "categories": np.concatenate([np.zeros((rows, 0), np.int64), *ids], axis=1),
            "numbers": np.concatenate([np.zeros((rows, 0), np.float32), *numbers], axis=1),
        }

    def to_json(self) -> str:
        """Canonical JSON: equal transforms give equal bytes."""
        kind_of = {cls: kind for kind, cls in FEATURE_KINDS.items()}
        content = {
            "kind": KIND,
            "features": [{"kind": kind_of[type(one)], **asdict(one)} for one in self.features],
            "target": asdict(self.target),
            "group": self.group,
        }
        return json.dumps(content, sort_keys=True, indent=2, allow_nan=False) + "\n"


def transform_from_json(text: str) -> TabularTransform:
    """The inverse of `to_json`. Raises ValueError for another kind of transform."""
    content = json.loads(text)
    if content.get("kind") != KIND:
        raise ValueError(f"this is a transform of kind {content.get('kind')!r}, not {KIND!r}")
    target = dict(content["target"])
    if target["classes"] is not None:
        target["classes"] = tuple(target["classes"])
    features = tuple(_feature(dict(one)) for one in content["features"])
    return TabularTransform(features, Target(**target), content["group"])


def load_transform(path: Path) -> TabularTransform:
    """The transform in the file `path`, a dataset's or a package's `transform.json`.

    Raises ValueError for another kind of transform, OSError where there is none.
    """
    return transform_from_json(Path(path).read_text(encoding="utf-8"))


def _feature(fields: dict) -> Feature:
    cls = FEATURE_KINDS[fields.pop("kind")]
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


def _missing(feature: Feature, rows: int) -> np.ndarray:
    """[rows] of the value that stands for a missing one: empty text, or NaN."""
    if feature.dtype == "BYTES":
        return np.full(rows, b"", dtype=object)
    return np.full(rows, np.nan, dtype=np.float32)
