"""candidate.json: one schema for the writer and the reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.schema import SchemaError
from serving.artifact.candidate import FILE, Candidate, CandidateError, read_candidate
from serving.artifact.lineage import DatasetRef, Lineage
from serving.artifact.tensors import DTYPES, TensorSpec

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("reports", "manifest.json", "manifest.json.sig")
)
specs = st.builds(
    TensorSpec,
    st.text(max_size=8),
    st.sampled_from(DTYPES),
    st.lists(st.integers(-1, 9), max_size=3).map(tuple),
    st.booleans(),
)
lineages = st.builds(
    Lineage,
    names,
    st.text(max_size=8),
    st.text(max_size=8),
    st.builds(DatasetRef, st.text(max_size=8), st.text(max_size=8), st.none() | st.text()),
    st.none() | st.text(max_size=8),
)
candidates = st.builds(
    Candidate,
    model=names,
    task=names,
    lineage=lineages,
    transform_digest=st.text(max_size=8),
    inputs=st.lists(specs, max_size=3).map(tuple),
    outputs=st.lists(specs, max_size=3).map(tuple),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    requires=st.dictionaries(st.text(), st.text()),
    code=st.lists(names, max_size=2).map(tuple),
)


@given(candidates)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, candidate: Candidate
) -> None:
    folder = tmp_path_factory.mktemp("candidate", numbered=True)
    (folder / FILE).write_bytes(candidate.to_bytes())
    assert read_candidate(folder) == candidate


CANDIDATE = Candidate(
    "flights", "flights", Lineage("run", "1", "2", DatasetRef("flights", "3")), "4", (), (), {}, {}
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "../up"}, "model is '../up', which cannot name a folder"),
        ({"task": "a/b"}, "task is 'a/b', which cannot name a folder"),
        ({"lineage": replace(CANDIDATE.lineage, run="reports")}, "run is 'reports'"),
        ({"code": ("model.py", "-rf")}, "code lists '-rf', which cannot name a file"),
    ],
)
def test_a_name_that_could_not_be_a_path_is_refused_when_it_is_made(
    change: dict, said: str
) -> None:
    with pytest.raises(SchemaError, match=said):
        replace(CANDIDATE, **change)


def test_a_metric_that_json_lacks_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(CANDIDATE, metrics={"auc": float("nan")}).to_bytes()


def test_a_file_that_is_not_one_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(CandidateError, match=r"candidate\.json: the whole is \[\]"):
        read_candidate(tmp_path)
