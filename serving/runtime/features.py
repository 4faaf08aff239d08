"""Raw columns to model columns, one kind of feature at a time. All frozen, all from JSON.

Two rules hold for every kind. A value that is not there (NaN, empty text) or cannot be (outside
`low`..`high`) is *missing*; a nullable feature turns it into zeros and, for numbers, a one in an
extra indicator column; any other feature refuses it. A category that was not in the vocabulary is
*unknown* and shares id 0 with missing ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import InvalidInput

CLIP = 8.0
"""Standardised numbers stay within this many standard deviations."""
MAX_TEXT = 64
"""Bytes of a category value, at most."""


@dataclass(frozen=True)
class Category:
    """Text (BYTES) or whole numbers (INT32) from a fixed vocabulary, as ids 1..n; 0 is unknown."""

    name: str
    dtype: str
    vocabulary: tuple[str, ...]
    nullable: bool

    def words(self, raw: np.ndarray) -> list[str]:
        """The values as text. Raises `InvalidInput` for empty or overlong ones."""
        if self.dtype == "INT32":
            return [str(value) for value in raw.tolist()]
        words = [_text(self.name, value) for value in raw.tolist()]
        if not self.nullable and "" in words:
            raise InvalidInput(f"{self.name}[{words.index('')}] is empty")
        return words

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """[batch] raw values -> int64 [batch] ids."""
        ids = {word: index + 1 for index, word in enumerate(self.vocabulary)}
        return np.array([ids.get(word, 0) for word in self.words(raw)], dtype=np.int64)


@dataclass(frozen=True)
class Number:
    """A quantity, standardised by the training split's mean and scale."""

    name: str
    dtype: str
    low: float
    high: float
    mean: float
    scale: float
    nullable: bool

    def known(self, raw: np.ndarray) -> np.ndarray:
        """float64 [batch], NaN where missing. Raises `InvalidInput` if that is not allowed."""
        return _in_range(self.name, raw, self.low, self.high, self.nullable)

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """[batch] raw values -> float32 [batch, 1 or 2]: the number, and if nullable `missing`."""
        values = self.known(raw)
        missing = np.isnan(values)
        scaled = np.clip((values - self.mean) / self.scale, -CLIP, CLIP)
        columns = [np.where(missing, 0.0, scaled)]
        if self.nullable:
            columns.append(missing.astype(np.float64))
        return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class Angle:
    """A direction in degrees, as sine and cosine: 359 is next to 0."""

    name: str
    dtype: str
    nullable: bool
    low: float = 0.0
    high: float = 360.0

    def known(self, raw: np.ndarray) -> np.ndarray:
        """float64 [batch], NaN where missing. Raises `InvalidInput` if that is not allowed."""
        return _in_range(self.name, raw, self.low, self.high, self.nullable)

    def encode(self, raw: np.ndarray) -> np.ndarray:
        """[batch] degrees -> float32 [batch, 2 or 3]: sine, cosine, and if nullable `missing`."""
        degrees = self.known(raw)
        missing = np.isnan(degrees)
        radians = np.deg2rad(np.where(missing, 0.0, degrees))
        columns = [np.where(missing, 0.0, np.sin(radians)), np.where(missing, 0.0, np.cos(radians))]
        if self.nullable:
            columns.append(missing.astype(np.float64))
        return np.stack(columns, axis=1).astype(np.float32)


Feature = Category | Number | Angle


def is_optional(feature: Feature) -> bool:
    """True when a request may leave the feature out: it is nullable, and its dtype has a value that
    stands for a missing one (empty BYTES, NaN)."""
    return feature.nullable and feature.dtype != "INT32"


def width(feature: Number | Angle) -> int:
    """The number of columns that `encode` makes of it."""
    return (2 if isinstance(feature, Angle) else 1) + int(feature.nullable)


def _in_range(name: str, raw: np.ndarray, low: float, high: float, nullable: bool) -> np.ndarray:
    values = raw.astype(np.float64)
    good = (values >= low) & (values <= high)  # False for NaN
    if not nullable and not good.all():
        row = int(np.argmin(good))
        raise InvalidInput(
            f"{name}[{row}] is {values[row]:g}; it must be a number from {low:g} to {high:g}"
        )
    return np.where(good, values, np.nan)


def _text(name: str, value: bytes | str) -> str:
    if isinstance(value, str):
        value = value.encode()
    if not isinstance(value, bytes):
        raise InvalidInput(f"{name} must be text, not {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise InvalidInput(f"{name} has a value of {len(value)} bytes; {MAX_TEXT} at most")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} has a value that is not UTF-8") from None
