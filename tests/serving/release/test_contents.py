"""Contents and interface: pickles found under any name, the runtime compared, lineage whole."""

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.artifact.digest import short
from serving.artifact.layout import MODEL_PY, RUNTIME
from serving.artifact.tensors import TensorSpec
from serving.release import candidate
from serving.release.candidate import StagedCandidate
from serving.release.gate import run_gate
from serving.release.gates.contents import (
    ContentsGate,
    code_record,
    pickle_kind,
    requirements,
    runtime_record,
)
from serving.release.gates.interface import interface_breaks

from . import tiny
from .subjects import bare_subject

GATE = ContentsGate(
    required=True,
    suffixes=(".py", ".json", ".onnx", ".pbtxt"),
    files=("config.pbtxt", "version/model.onnx"),
    max_bytes=1 << 20,
    same_runtime=True,
)


@pytest.fixture
def staged(tmp_path: Path, dataset_template: Path) -> StagedCandidate:
    source = tiny.write_candidate(tmp_path / "runs", dataset_template)
    return candidate.stage_candidate(source, tmp_path / "staged", 1 << 20)


def rehashed(staged: StagedCandidate) -> StagedCandidate:
    """The staged folder as it is now."""
    return replace(staged, files=candidate.list_files(staged.folder))


def judged(staged: StagedCandidate, gate: ContentsGate = GATE) -> dict[str, tuple[str, str]]:
    """The records that need neither dataset nor server."""
    records = run_gate("contents", gate, bare_subject(staged=rehashed(staged)))
    found = {record.name: (record.verdict, record.detail) for record in records}
    assert [found.pop(f"contents.{name}")[0] for name in ("dataset", "requires")] == ["unknown"] * 2
    return found


def test_a_clean_package_passes(staged: StagedCandidate) -> None:
    assert {verdict for verdict, _ in judged(staged).values()} == {"pass"}


PAYLOAD = {"weights": [1.0, 2.0], "name": "model"}


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(PAYLOAD))
    return buffer.getvalue()


def _numpy_objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([PAYLOAD], dtype=object), allow_pickle=True)
    return buffer.getvalue()


HIDDEN = {
    **{f"protocol {n}": pickle.dumps(PAYLOAD, n) for n in range(6)},
    "protocol 0 and more": pickle.dumps(PAYLOAD, 0) + b"trailing",
    "torch zip": _zip(),
    "zip behind a header": b"onnx!" * 10 + _zip(),
    "numpy objects": _numpy_objects(),
    "gzip": gzip.compress(pickle.dumps(PAYLOAD)),
    "bzip2": bz2.compress(pickle.dumps(PAYLOAD)),
    "xz": lzma.compress(pickle.dumps(PAYLOAD)),
}


@pytest.mark.parametrize("content", HIDDEN.values(), ids=HIDDEN.keys())
@pytest.mark.parametrize("name", ["version/model.onnx", "version/weights.json"])
def test_a_pickle_or_archive_is_found_under_any_name(
    staged: StagedCandidate, name: str, content: bytes
) -> None:
    (staged.folder / name).write_bytes(content)
    verdict, detail = judged(staged)["contents.files"]
    assert verdict == "fail" and name in detail


@pytest.mark.parametrize(
    "name", ["version/model.pkl", "version/model.pt", "version/run.sh", "LICENSE"]
)
def test_a_kind_of_file_that_no_package_needs_is_refused(
    staged: StagedCandidate, name: str
) -> None:
    (staged.folder / name).write_text("harmless")
    verdict, detail = judged(staged)["contents.files"]
    assert verdict == "fail" and name in detail


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        "import os\n",
        "name: 'x'\n",
        ".",
        "",
        "# a comment\n",
        "[1, 2]\n",
        '"""Doc."""\n',
    ],
)
def test_plain_text_is_no_pickle(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    assert pickle_kind(tmp_path / "f") == ""


def test_no_source_file_of_ours_is_taken_for_a_pickle() -> None:
    files = [*(tiny.REPO / "serving").rglob("*.py"), *(tiny.REPO / "conf").rglob("*.yaml")]
    assert files and [file for file in files if pickle_kind(file)] == []


@given(st.binary(max_size=200))
def test_the_sniffer_never_falls_over(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("sniff") / "f"
    path.write_bytes(data)
    pickle_kind(path)


def test_size_and_missing_parts_are_told(staged: StagedCandidate) -> None:
    (staged.folder / "version/model.onnx").unlink()
    found = judged(staged, replace(GATE, max_bytes=10))
    assert found["contents.size"][0] == "fail"
    assert found["contents.files"] == ("fail", "version/model.onnx is missing")


def test_a_transform_that_is_not_the_declared_one_breaks_lineage(staged: StagedCandidate) -> None:
    (staged.folder / "version/transform.json").write_text("{}")
    verdict, detail = judged(staged)["contents.lineage"]
    assert verdict == "fail" and "transform.json" in detail


def test_what_a_client_would_notice_is_a_break(staged: StagedCandidate, publishable) -> None:
    old = publishable(staged)
    assert interface_breaks(old, staged) == []

    def changed(**change: tuple[TensorSpec, ...]) -> list[str]:
        now = replace(staged, candidate=replace(staged.candidate, **change))
        return interface_breaks(old, now)

    carrier, distance = staged.candidate.inputs
    extra = TensorSpec("new", "FP32", (-1, 1))
    assert changed(inputs=(distance,)) == ["input carrier is gone"]
    assert changed(inputs=(carrier, replace(distance, dtype="FP64"))) == [
        "input distance was FP32[-1, 1], is FP64[-1, 1]"
    ]
    assert changed(inputs=(carrier, distance, extra)) == [
        "input new is new and clients do not send it"
    ]
    assert changed(inputs=(carrier, distance, replace(extra, optional=True))) == []
    assert changed(inputs=(carrier, replace(distance, optional=True))) == []
    optional = replace(old, inputs=(carrier, replace(distance, optional=True)))
    assert interface_breaks(optional, staged) == [
        "input distance was optional FP32[-1, 1], is FP32[-1, 1]"
    ]
    assert changed(outputs=(*staged.candidate.outputs, extra)) == []
    assert changed(outputs=(extra,)) == ["output late_probability is gone"]


@pytest.fixture
def publishable():
    from tests.serving.artifact.conftest import make_manifest

    def make(staged: StagedCandidate):
        manifest = make_manifest(staged.folder)
        return replace(manifest, inputs=staged.candidate.inputs, outputs=staged.candidate.outputs)

    return make


@pytest.mark.parametrize(
    ("requires", "verdict"),
    [
        ({"numpy": "<2", "triton": ">=2.51", "python": "3.11"}, "pass"),
        ({"python": "3.1"}, "fail"),
        ({"numpy": ">=2"}, "fail"),
        ({"triton": ">=2.52"}, "fail"),
        ({"cuda": ">=12"}, "unknown"),
        ({"numpy": "=<2"}, "unknown"),
    ],
)
def test_requirements_are_held_against_the_serving_environment(
    requires: dict[str, str], verdict: str
) -> None:
    have = {"numpy": "1.26.4", "triton": "2.51.0", "python": "3.11.2"}
    record = requirements("contents.requires", requires, have)
    assert (record.name, record.verdict) == ("contents.requires", verdict)


def with_runtime(staged: StagedCandidate) -> StagedCandidate:
    """The staged package with Lockgate's own entry and runtime in it."""
    folder = staged.folder / "version/lockgate_runtime"
    folder.mkdir()
    for source in RUNTIME.glob("*.py"):
        (folder / source.name).write_bytes(source.read_bytes())
    (staged.folder / "version/model.py").write_text(MODEL_PY)
    return rehashed(staged)


def test_the_runtime_is_compared_with_the_releases_own_by_digest(staged: StagedCandidate) -> None:
    staged = with_runtime(staged)
    own = runtime_record("contents.runtime", staged)
    assert (own.verdict, own.value) == ("pass", 0)
    assert own.detail == "this release's own; the task's own code: none"
    runtime = staged.folder / "version/lockgate_runtime"
    with (runtime / "features.py").open("a") as file:
        file.write("# a better score\n")
    (runtime / "scores.py").write_text("BETTER = True\n")
    (staged.folder / "version/digits").mkdir()
    (staged.folder / "version/digits/net.py").write_text("import numpy\n")
    changed = runtime_record("contents.runtime", rehashed(staged))
    assert (changed.verdict, changed.value) == ("fail", 2)
    assert (
        "own: features.py, scores.py; the task's own code: version/digits/net.py" in changed.detail
    )


def test_another_runtime_can_be_reported_only(staged: StagedCandidate) -> None:
    staged = with_runtime(staged)
    (staged.folder / "version/lockgate_runtime/features.py").write_text("")
    for same, required in ((True, True), (False, False)):
        gate = replace(GATE, same_runtime=same)
        records = run_gate("contents", gate, bare_subject(staged=rehashed(staged)))
        (record,) = [one for one in records if one.name == "contents.runtime"]
        assert (record.verdict, record.required) == ("fail", required)


def test_an_entry_of_the_tasks_own_is_named(staged: StagedCandidate) -> None:
    assert "the task's own code: version/model.py" in runtime_record("r", staged).detail


def test_own_code_is_exactly_what_the_candidate_names(staged: StagedCandidate) -> None:
    named = code_record("c", staged)
    (entry,) = staged.own_code
    assert (named.verdict, named.detail) == (
        "pass",
        f"version/model.py sha256:{short(entry.sha256)}",
    )
    (staged.folder / "version/hidden.py").write_text("import os\n")
    hidden = code_record("c", rehashed(staged))
    assert hidden.verdict == "fail"
    assert hidden.detail == "version/hidden.py is not in candidate.json's code"
    own = with_runtime(staged)  # Lockgate's entry now: nothing of the task's own but the hidden
    assert code_record("c", own).detail.endswith("version/model.py is named and not there")
    (staged.folder / "version/lockgate_runtime/extra.json").write_text("{}")
    paths = [one.path for one in rehashed(staged).own_code]
    assert paths == ["version/hidden.py", "version/lockgate_runtime/extra.json"]
