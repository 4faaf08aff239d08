"""Releases of a tiny language model: real tritonservers, compressors and production's record."""

import gzip
import json
from pathlib import Path

import pytest

from serving.artifact.manifest import read_manifest
from serving.release import pipeline
from serving.release.report import ReleaseReport

from . import tiny, tiny_text

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("triton_env", "mlflow_db")]

QUICK = ["gates.latency.rounds=2", "gates.latency.round_s=0.3", "gates.latency.min_requests=5",
         "gates.bits.per_byte.chunk_bytes=4096"]  # fmt: skip


def released(site: Path, run: str, *overrides: str) -> ReleaseReport:
    settings = tiny.make_settings(site, run, *QUICK, *overrides, gates="lm")
    return pipeline.release_candidate(settings, lambda line: None)


def values(report: ReleaseReport) -> dict[str, float | None]:
    return {one.name: one.value for one in report.gates if one.name.startswith("bits.")}


def test_bits_per_byte_are_held_against_compressors_and_against_productions_record(
    site: Path,
) -> None:
    dataset = tiny_text.write_dataset(site / "data")
    text = tiny_text.TEXT.encode()
    gzip_bits = 8 * len(gzip.compress(text, 9)) / len(text)
    for run, bits in (("first", gzip_bits / 4), ("worse", gzip_bits / 3), ("poor", 7.0)):
        tiny_text.write_candidate(site / "runs", dataset, run, bits)
    first = released(site, "first")
    assert first.outcome == "released", [one for one in first.gates if one.verdict != "pass"]
    assert values(first) == {
        "bits.lossless": None,
        "bits.per_byte": pytest.approx(gzip_bits / 4),
        "bits.vs_gzip": pytest.approx(gzip_bits / 4),
        "bits.vs_xz": pytest.approx(gzip_bits / 4),
    }
    thresholds = {one.name: one.threshold for one in first.gates}
    assert thresholds["bits.vs_gzip"] == pytest.approx(gzip_bits)
    assert "chunks" in next(one.detail for one in first.gates if one.name == "bits.per_byte")

    tiny.deploy(site, "webster", 1)
    worse = released(site, "worse")
    bad = {one.name for one in worse.gates if one.required and one.verdict != "pass"}
    assert (worse.outcome, worse.exit_code, bad) == ("refused", 4, {"bits.vs_production"})
    (against,) = [one for one in worse.gates if one.name == "bits.vs_production"]
    signed = {one.name: one.value for one in read_manifest(site / "store/webster/1").gates}
    assert against.threshold == pytest.approx(1.01 * signed["bits.per_byte"])

    # Without a record of that name production itself is measured, and comes to the same.
    again = released(site, "worse", "gates.bits.vs_production.baseline.record=''")
    (measured,) = [one for one in again.gates if one.name == "bits.vs_production"]
    assert measured.threshold == pytest.approx(against.threshold)

    poor = released(site, "poor")
    bad = {one.name for one in poor.gates if one.required and one.verdict != "pass"}
    assert bad == {"bits.vs_gzip", "bits.vs_production"}, poor.gates
    reports = sorted((site / "store/reports").glob("webster-poor-*.json"))
    assert json.loads(reports[-1].read_text())["outcome"] == "refused"
