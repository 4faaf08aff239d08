"""Compression gates: how a text is cut, what compressors need, and who is beaten."""

import gzip
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.release.baselines import (
    GzipBaseline,
    ProductionBaseline,
    XzBaseline,
    recorded,
)
from serving.release.bits import CodeLength, HeldOutText, chunks
from serving.release.gate import run_gate
from serving.release.gates.compression import CompressionGate, LosslessGate
from tests.serving.artifact.conftest import make_manifest

from .subjects import bare_subject

TEXT = HeldOutText("holdout.txt", 16384, 1)


@given(st.text(min_size=1, max_size=300), st.integers(4, 60))
def test_chunks_are_text_and_join_to_the_text(text: str, size: int) -> None:
    data = text.encode("utf-8", "replace")
    pieces = list(chunks(data, size))
    assert b"".join(pieces) == data
    for piece in pieces:
        assert 0 < len(piece) <= size
        piece.decode("utf-8")


def test_chunks_end_at_a_line_end_where_there_is_one() -> None:
    assert list(chunks(b"one line\nanother line\n", 12)) == [
        b"one line\n",
        b"another line",
        b"\n",
    ]


def test_the_baselines_are_the_real_compressors(tmp_path: Path) -> None:
    text = b"The quick brown fox. " * 500
    (tmp_path / "holdout.txt").write_bytes(text)
    subject = bare_subject(find_dataset=lambda: tmp_path)
    wanted = 8 * len(gzip.compress(text, 9)) / len(text)
    assert GzipBaseline().bits_per_byte(subject, TEXT) == pytest.approx(wanted)
    assert 0 < XzBaseline().bits_per_byte(subject, TEXT) < 8


def test_bits_per_byte_counts_nats_as_bits() -> None:
    assert CodeLength(
        nats=8 * math.log(2) * 100, bytes=100, chunks=1
    ).bits_per_byte == pytest.approx(8)


@pytest.mark.parametrize(("needs", "verdict"), [(2.0, "pass"), (2.62, "pass"), (2.63, "fail")])
def test_a_compressor_is_beaten_or_not(needs: float, verdict: str) -> None:
    model = CodeLength(needs * math.log(2) * 1000, 1000, 1)
    gate = CompressionGate(required=True, baseline=GzipBaseline(), ratio=1.0)
    record = gate.compare("bits.vs_gzip", model, 2.6200001)
    assert (record.name, record.verdict) == ("bits.vs_gzip", verdict)
    assert record.value == pytest.approx(needs)


def test_productions_own_number_counts_only_for_the_same_text(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text("{}")
    made = make_manifest(tmp_path)
    record = replace(made.gates[0], name="bits.per_byte", value=1.5)
    made = replace(made, gates=(record,))
    dataset = made.lineage.dataset.digest
    assert recorded(made, "bits.per_byte", dataset) == 1.5
    assert recorded(made, "bits.vs_gzip", dataset) is None
    assert recorded(made, "bits.per_byte", "0" * 64) is None
    assert recorded(replace(made, gates=()), "bits.per_byte", dataset) is None


def gate_records(gate: CompressionGate, needs: float, tmp_path: Path, **changes: object):
    (tmp_path / "holdout.txt").write_bytes(b"The quick brown fox. " * 500)
    subject = bare_subject(find_dataset=lambda: tmp_path, **changes)
    nats = needs * math.log(2) * 1000
    key = ("code length", gate.text, False)
    subject.once(key, lambda: CodeLength(nats, 1000, 1))
    return run_gate("bits.x", gate, subject)


def test_a_maximum_needs_no_baseline(tmp_path: Path) -> None:
    gate = CompressionGate(required=True, maximum=8.0)
    (record,) = gate_records(gate, 1.25, tmp_path)
    assert (record.name, record.verdict) == ("bits.x", "pass")
    assert (record.value, record.threshold) == (pytest.approx(1.25), 8.0)
    assert gate_records(gate, 9.0, tmp_path)[0].verdict == "fail"


def test_without_production_its_gate_is_not_there(tmp_path: Path) -> None:
    gate = CompressionGate(required=True, baseline=ProductionBaseline("bits.per_byte"), ratio=1.01)
    assert gate_records(gate, 1.25, tmp_path) == []


def test_an_empty_text_proves_nothing(tmp_path: Path) -> None:
    (tmp_path / "holdout.txt").write_bytes(b"")
    gate = CompressionGate(required=True, baseline=GzipBaseline())
    (record,) = run_gate("bits", gate, bare_subject(find_dataset=lambda: tmp_path))
    assert record.verdict == "unknown" and "is empty" in record.detail


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "a baseline or a maximum"),
        ({"baseline": GzipBaseline(), "maximum": 8.0}, "not both"),
        ({"maximum": 8.0, "ratio": 0.0}, "ratio=0.0"),
        ({"maximum": 8.0, "chunk_bytes": 3}, "chunk_bytes=3"),
        ({"maximum": 8.0, "instances": -1}, "instances=-1"),
    ],
)
def test_settings_that_measure_nothing_are_refused(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CompressionGate(required=True, **change)


def test_a_tokenizer_that_loses_bytes_is_found(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    text = "Canals and locks.\n" * 50
    (tmp_path / "holdout.txt").write_text(text)
    (tmp_path / "version").mkdir()
    verdicts = []
    for lowercase in (False, True):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
        tokenizer.train_from_iterator([text], trainer)
        if lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.save(str(tmp_path / "version/tokenizer.json"))
        subject = bare_subject(
            staged=SimpleNamespace(folder=tmp_path), find_dataset=lambda: tmp_path
        )
        (record,) = run_gate("bits.lossless", LosslessGate(required=True), subject)
        verdicts.append(record.verdict)
    assert verdicts == ["pass", "fail"]
