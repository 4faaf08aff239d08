"""The features and the target of a tabular dataset, as a config declares them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpc.data.dataset import TENSOR_NAME

DTYPES = {"category": ("BYTES", "INT32"), "number": ("FP32", "INT32"), "angle": ("FP32",)}
"""The dtypes of each kind of feature, the default first."""


@dataclass(frozen=True)
class FeatureSpec:
    """One raw feature column of the prepared splits and of the serving API."""

    name: str
    kind: Literal["category", "number", "angle"]
    """Its treatment by the transform: a vocabulary, a standardised quantity, a direction in degrees
    (see `serving.runtime.features`)."""
    dtype: str = ""
    """Type of the served tensor: BYTES (category) or FP32, or INT32; "" is the kind's first."""
    nullable: bool = False
    """True if a value may be missing: empty or NaN, in the source and in a request."""
    low: float | None = None
    """Least possible value of a number, in its unit. Below it a value is missing, or refused where
    the feature is not nullable. None: any finite value, for the training split's own range would
    turn away what is only rare."""
    high: float | None = None
    """Greatest possible value of a number; see `low`."""

    def __post_init__(self) -> None:
        if not TENSOR_NAME.fullmatch(self.name):
            raise ValueError(
                f"name={self.name}: a served tensor's name has letters, digits, '_', '-' and '.'; "
                "map the column to another name with data.columns"
            )
        choices = DTYPES[self.kind]
        if self.dtype and self.dtype not in choices:
            raise ValueError(f"dtype={self.dtype}: a {self.kind} is {' or '.join(choices)}")
        if self.nullable and self.dtype == "INT32":
            other = choices[0]
            raise ValueError(f"nullable=true: INT32 has no missing value; make it {other}")
        if self.kind == "category" and (self.low is not None or self.high is not None):
            raise ValueError("low and high are of numbers and angles, not of a category")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low={self.low}: must be below high={self.high}")

    @property
    def wire(self) -> str:
        """The served dtype."""
        return self.dtype or DTYPES[self.kind][0]


@dataclass(frozen=True)
class TargetSpec:
    """The predicted column."""

    name: str
    """Its name in the prepared splits."""
    kind: Literal["binary", "multiclass", "regression"]
    column: str = ""
    """The source's column; "" is `name`."""
    above: float | None = None
    """Binary: 1 where the column, a number, is more than this."""
    positive: str | int | float | bool | None = None
    """Binary: 1 where the column has this value. Without `above` and `positive` the column holds
    0 and 1, or false and true."""
    output: str = ""
    """Name of the served tensor; "" is `<name>_probability` (binary) or `<name>` (regression). A
    multiclass target is served as `probabilities` and `label`."""

    def __post_init__(self) -> None:
        if self.kind != "binary" and (self.above is not None or self.positive is not None):
            raise ValueError(f"above and positive are of a binary target, not of a {self.kind} one")
        if self.above is not None and self.positive is not None:
            raise ValueError(f"above={self.above}: leave out positive, or this")
        if not TENSOR_NAME.fullmatch(self.served):
            raise ValueError(
                f"output={self.served}: a served tensor's name has letters, digits, '_', '-', '.'"
            )
        if self.kind == "multiclass" and self.output:
            raise ValueError(f"output={self.output}: a multiclass target has two outputs; leave it")

    @property
    def source(self) -> str:
        """The source's column."""
        return self.column or self.name

    @property
    def served(self) -> str:
        """Name of the served tensor; of several classes that of their probabilities."""
        served = {"binary": f"{self.name}_probability", "multiclass": "probabilities"}
        return self.output or served.get(self.kind, self.name)
