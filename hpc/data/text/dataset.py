"""The configuration of a text dataset: the keys of a `conf/data/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpc.data.dataset import BuildResult, Progress
from hpc.data.recipe import core_files, files_of
from hpc.data.source import FileSource, SourceFile


@dataclass(frozen=True)
class TextDataset:
    """Text for a language model: files put together, cut into train, validation, holdout."""

    name: str
    """The dataset's folder: ${site.paths.data}/<name>."""
    source: FileSource
    """UTF-8 text files (.gz and .dz are unpacked), put together in the order given."""
    holdout_bytes: int
    """The last bytes of the text: never trained on, never tuned on."""
    validation_bytes: int
    """The bytes before the holdout."""
    vocab_size: int
    """Tokens of the byte-level BPE, the 256 bytes and the end token included; at most 65,536."""
    pretokenizer: str = ""
    """Regular expression of the pieces that merges never cross; "" is GPT-2's."""

    def __post_init__(self) -> None:
        if not 257 <= self.vocab_size <= 65_536:
            raise ValueError(
                f"vocab_size={self.vocab_size}: use 257 (bytes and an end token) to 65536"
            )
        for key in ("holdout_bytes", "validation_bytes"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)}: must be at least 1")

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
        from hpc.data.text.build import build_text

        return build_text(self, staging, progress)

    def code(self) -> tuple[Path, ...]:
        """See `Dataset.code`."""
        folder = Path(__file__).parent
        return (*files_of(folder), *core_files("source", "tokenizer"))
