"""The configuration of a labelled-text dataset: the keys of a `conf/data/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hpc.data.dataset import BuildResult, Progress
from hpc.data.recipe import core_files, files_of
from hpc.data.source import FileSource, SourceFile
from hpc.data.split import SplitSpec
from hpc.data.tables import CsvFormat

ROWS = "rows"
TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class LabelledTextDataset:
    """Texts and their labels, for a classifier."""

    name: str
    """The dataset's folder: ${site.paths.data}/<name>."""
    source: FileSource
    """The file `rows`, CSV or Parquet, and perhaps `tokenizer`, a tokenizer.json to use as it is;
    without it a byte-level BPE is trained on the training split."""
    text: str
    """Column of the texts."""
    label: str
    """Column of the labels; those on train are the classes."""
    max_tokens: int
    """Tokens of a text that are read, in training and in serving; the rest is cut off."""
    split: SplitSpec
    group: str = ""
    """Column whose equal values stay together in one split; "" keeps only equal rows together."""
    vocab_size: int = 0
    """Tokens of the trained BPE, 257 to 65536; leave it out with a tokenizer of one's own."""
    pad_token: str = ""
    """The padding token of one's own tokenizer; "" takes that of its file."""
    csv: CsvFormat = field(default_factory=CsvFormat)

    def __post_init__(self) -> None:
        files = set(self.source.files)
        if not {ROWS} <= files <= {ROWS, TOKENIZER}:
            raise ValueError(f"source.files: needs {ROWS!r}, and may have {TOKENIZER!r}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens}: must be at least 1")
        if len({self.text, self.label, self.group}) < 3:
            raise ValueError("text, label and group must be different columns")
        if TOKENIZER in files and self.vocab_size:
            raise ValueError(f"vocab_size={self.vocab_size}: source.files.tokenizer has its own")
        if TOKENIZER not in files and not 257 <= self.vocab_size <= 65_536:
            raise ValueError(
                f"vocab_size={self.vocab_size}: use 257 (bytes and a padding token) to 65536"
            )
        if TOKENIZER not in files and self.pad_token:
            raise ValueError(f"pad_token={self.pad_token}: is of a tokenizer of one's own")

    def sources(self) -> dict[str, SourceFile]:
        """See `Dataset.sources`."""
        return self.source.pinned_files()

    def source_name(self) -> str:
        """See `Dataset.source_name`."""
        return self.source.name()

    def source_version(self) -> str:
        """See `Dataset.source_version`."""
        return self.source.version()

    def build(self, staging: Path, progress: Progress) -> BuildResult:
        """See `Dataset.build`."""
        from hpc.data.labelled_text.build import build_labelled_text

        return build_labelled_text(self, staging, progress)

    def code(self) -> tuple[Path, ...]:
        """See `Dataset.code`."""
        shared = core_files("source", "tables", "split", "classes", "tokenizer")
        return (*files_of(Path(__file__).parent), *shared)
