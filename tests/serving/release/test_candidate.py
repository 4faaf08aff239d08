"""Taking a candidate that its owner may change meanwhile, and saying what is wrong with it."""

from pathlib import Path

import pytest

from serving.artifact.candidate import CandidateError, read_candidate
from serving.artifact.verify import Refused
from serving.release import candidate

from . import tiny


@pytest.fixture
def folder(tmp_path: Path, dataset_template: Path) -> Path:
    return tiny.write_candidate(tmp_path / "runs", dataset_template)


def test_the_copy_is_what_was_there_and_is_hashed_where_it_lies(
    folder: Path, tmp_path: Path
) -> None:
    staged = candidate.stage_candidate(folder, tmp_path / "staged", 1 << 20)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert [entry.path for entry in staged.files] == names
    for name in names:
        assert (staged.folder / name).read_bytes() == (folder / name).read_bytes()
    assert staged.candidate.lineage.dataset.name == "flights"


def test_a_link_to_somewhere_else_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    (folder / "version/notes.json").symlink_to(tmp_path / "secret")
    with pytest.raises(Refused, match=r"version/notes\.json is a symbolic link"):
        candidate.stage_candidate(folder, tmp_path / "staged", 1 << 20)


def test_a_folder_swapped_for_a_link_after_the_look_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = candidate.list_candidate

    def look_then_swap(directory: Path) -> list[tuple[str, int]]:
        found = looked(directory)
        (folder / "version").rename(tmp_path / "secret")
        (folder / "version").symlink_to(tmp_path / "secret")
        return found

    monkeypatch.setattr(candidate, "list_candidate", look_then_swap)
    with pytest.raises(CandidateError, match="could not be copied"):
        candidate.stage_candidate(folder, tmp_path / "staged", 1 << 20)
    assert not (tmp_path / "staged/version").exists()


def test_a_file_that_grows_while_it_is_copied_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = candidate.list_candidate

    def look_then_write(directory: Path) -> list[tuple[str, int]]:
        found = looked(directory)
        with (folder / "config.pbtxt").open("a") as file:
            file.write("# more\n")
        return found

    monkeypatch.setattr(candidate, "list_candidate", look_then_write)
    with pytest.raises(CandidateError, match=r"config\.pbtxt changed while it was copied"):
        candidate.stage_candidate(folder, tmp_path / "staged", 1 << 20)


def test_too_much_is_refused_before_it_is_copied(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CandidateError, match=r"at most 1000 and 100 \(max_bytes\)"):
        candidate.stage_candidate(folder, tmp_path / "staged", 100)
    assert not (tmp_path / "staged").exists()


def test_an_unknown_run_is_answered_with_those_that_have_a_candidate(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CandidateError, match="no run 'tiny'; runs with a candidate: tiny-run"):
        read_candidate(tmp_path / "runs/tiny/candidate")
    (tmp_path / "runs/unfinished").mkdir()
    with pytest.raises(CandidateError, match="See lockgate logs unfinished"):
        read_candidate(tmp_path / "runs/unfinished/candidate")
    with pytest.raises(CandidateError, match="no runs folder"):
        read_candidate(tmp_path / "nowhere/run/candidate")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "../flights"}, "model is '../flights', which cannot name a folder"),
        ({"model": "reports"}, "cannot name a folder"),
        ({"lineage": {"run": "a' OR '1'='1"}}, "cannot name a folder"),
        ({"code": ["../model.py"]}, "code lists '../model.py', which cannot name a file"),
        ({"inputs": [{"name": "x", "dtype": "FLOAT", "shape": [1]}]}, "dtype 'FLOAT', not one of"),
        ({"metrics": {"auc": "high"}}, "metrics.auc is 'high'"),
        ({"surprise": 1}, "surprise is unknown"),
    ],
)
def test_a_senseless_candidate_is_refused_with_a_sentence(
    tmp_path: Path, dataset_template: Path, change: dict, said: str
) -> None:
    name = change.pop("model", "flights")
    folder = tiny.write_candidate(tmp_path / "runs", dataset_template, model=name, **change)
    with pytest.raises(CandidateError) as error:
        read_candidate(folder)
    assert said in str(error.value) and "candidate.json" in str(error.value)
