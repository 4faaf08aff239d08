"""Compression gates for language models: bits per byte of the held-out text, as served.

A language model is a compressor, and compressors are its honest baseline: `gzip -9` and `xz -9e`
of the very same bytes (`serving.release.bits` counts).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serving.artifact.manifest import GateRecord
from serving.release.baselines import CompressionBaseline
from serving.release.bits import CodeLength, HeldOutText, held_out_bytes, served_code_length
from serving.release.gate import at_most, holds
from serving.release.subject import GateSubject


@dataclass(frozen=True)
class LosslessGate:
    """The tokenizer gives back every byte: one that drops some makes a text cheaper than it is."""

    required: bool
    file: str = "holdout.txt"
    """The held-out text in the dataset."""

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        return (name,)

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        from tokenizers import Tokenizer

        content = (subject.dataset() / self.file).read_bytes()
        tokenizer = Tokenizer.from_file(str(subject.staged.folder / "version/tokenizer.json"))
        wanted = content.decode("utf-8")
        ids = tokenizer.encode(wanted, add_special_tokens=False).ids
        got = tokenizer.decode(ids, skip_special_tokens=False)
        yield holds(name, got == wanted, f"{len(content)} bytes to {len(ids)} tokens and back")


@dataclass(frozen=True)
class CompressionGate:
    """At most `maximum` bits per byte, or at most `ratio` times those of a baseline."""

    required: bool
    baseline: CompressionBaseline | None = None
    """Gzip, xz or production, from `serving.release.baselines`."""
    ratio: float = 1.0
    """The model's bits per byte over the baseline's, at most."""
    maximum: float | None = None
    """Bits per byte, at most; in the place of a baseline."""
    file: str = "holdout.txt"
    """The held-out text in the dataset."""
    chunk_bytes: int = 16384
    """Text of one request; the context of a byte never reaches beyond its chunk."""
    instances: int = 0
    """Of the package while it scores, and requests at a time; 0: one per CPU."""

    def __post_init__(self) -> None:
        if (self.baseline is None) == (self.maximum is None):
            raise ValueError("baseline: give a baseline or a maximum, and not both")
        if self.ratio <= 0:
            raise ValueError(f"ratio={self.ratio}: must be above 0")
        self.text  # noqa: B018 - its own checks

    @property
    def text(self) -> HeldOutText:
        """The text and how it is sent."""
        return HeldOutText(self.file, self.chunk_bytes, self.instances)

    def names(self, name: str, subject: GateSubject) -> tuple[str, ...]:
        return (name,) if self.baseline is None or self.baseline.applies(subject) else ()

    def run(self, name: str, subject: GateSubject) -> Iterator[GateRecord]:
        if not self.names(name, subject):
            return
        if len(held_out_bytes(subject, self.text)) == 0:
            raise ValueError(f"the held-out text {self.file} is empty")
        other = self.baseline.bits_per_byte(subject, self.text) if self.baseline else None
        yield self.compare(name, served_code_length(subject, self.text), other)

    def compare(self, name: str, model: CodeLength, baseline: float | None) -> GateRecord:
        """The record for a model's code length, against the `baseline` in bits per byte."""
        needs = f"bits per byte: the model needs {model.bits_per_byte:.4f}"
        size = f"{model.bytes} bytes in {model.chunks} chunks"
        if baseline is None:
            assert self.maximum is not None
            return at_most(name, model.bits_per_byte, self.maximum, f"{needs}; {size}")
        detail = f"{needs}, the baseline {baseline:.4f}; {size}"
        return at_most(name, model.bits_per_byte, self.ratio * baseline, detail)
