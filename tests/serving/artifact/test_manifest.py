"""The manifest: one spelling, read strictly, refused with a sentence."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.artifact.digest import canonical_json, pairs_digest, tree_digest
from serving.artifact.manifest import ManifestError, list_files, parse_manifest, read_manifest
from serving.artifact.verify import Refused

from .conftest import FILES, make_manifest, write_files


def content(tmp_path: Path) -> dict:
    return json.loads(make_manifest(write_files(tmp_path / "p")).to_bytes())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    manifest = make_manifest(write_files(tmp_path))
    assert parse_manifest(manifest.to_bytes()) == manifest


def test_files_are_listed_sorted_without_manifest_and_signature(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "manifest.json.sig").write_text("")
    assert [entry.path for entry in list_files(tmp_path)] == sorted(FILES)


def test_another_spelling_of_the_same_content_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="canonical"):
        parse_manifest(json.dumps(content(tmp_path)).encode())


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("model",), 3, "model is 3, not of type str"),
        (("version",), True, "version is True, not of type int"),
        (("version",), 0, "versions count from 1"),
        (("surprise",), 1, "surprise is unknown here"),
        (("lineage", "run"), None, "lineage.run is None"),
        (("lineage", "dataset", "digest"), 1, "lineage.dataset.digest is 1"),
        (("files", 0, "bytes"), "4", r"files\[0\].bytes is '4'"),
        (("files", 0, "path"), "../up", "unsafe path '../up'"),
        (("inputs", 0, "shape"), 4, r"inputs\[0\].shape is 4, not a list"),
        (("inputs", 0, "dtype"), "FLOAT", "dtype 'FLOAT', not one of"),
        (("gates", 0, "verdict"), "maybe", "not one of pass, fail, unknown"),
        (("metrics", "auc"), "high", "metrics.auc is 'high'"),
        (("format",), "lockgate-package/9", "lockgate-package/9"),
        (("expires",), "2099-01-02", "created or expires: .*2099-01-02"),
        (("created",), "2099-01-02T03:04:05Z", "not after 2099-01-02T03:04:05Z"),
        (("previous",), "2", "previous is '2'"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(
    tmp_path: Path, path: tuple, value: object, sentence: str
) -> None:
    spoiled = content(tmp_path)
    node = spoiled
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ManifestError, match=sentence):
        parse_manifest(canonical_json(spoiled))


@pytest.mark.parametrize("key", ["model", "files", "lineage", "gates", "requires", "expires"])
def test_a_missing_field_is_named(tmp_path: Path, key: str) -> None:
    spoiled = content(tmp_path)
    del spoiled[key]
    with pytest.raises(ManifestError, match=f"{key} is missing"):
        parse_manifest(canonical_json(spoiled))


def test_a_package_of_the_first_format_is_refused_with_the_commands_to_type(tmp_path: Path) -> None:
    old = content(tmp_path) | {"format": "lockgate-package/1"}
    del old["expires"]
    sentence = "out of the store, then release its run again: lockgate release run=run-1$"
    with pytest.raises(ManifestError, match=sentence):
        parse_manifest(canonical_json(old))
    for lineage in (None, {"run": "a b; c"}):
        with pytest.raises(ManifestError, match=r"lockgate release run=RUN$"):
            parse_manifest(canonical_json(old | {"lineage": lineage}))


def test_a_folder_without_a_manifest_is_not_a_package(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not a package"):
        read_manifest(tmp_path)


def test_a_file_name_that_no_package_may_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two words.py").write_text("")
    with pytest.raises(ManifestError, match=r"'two words\.py' cannot be packaged"):
        list_files(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
)


@settings(deadline=None)
@given(JSON)
def test_no_json_at_all_makes_the_reader_fall_over(value: object) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(canonical_json(value))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=4), min_size=1), st.randoms())
def test_the_tree_digest_is_of_names_and_bytes_only(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], random: object
) -> None:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    names = list(files)
    random.shuffle(names)  # type: ignore[attr-defined]
    for name in files:
        (one / name).write_bytes(files[name])
    for name in names:
        (two / name).write_bytes(files[name])
        (two / name).chmod(0o600)
    (two / "lineage.json").write_text("does not count")
    assert tree_digest(one) == tree_digest(two)
    (two / names[0]).write_bytes(files[names[0]] + b"x")
    assert tree_digest(one) != tree_digest(two)


def test_the_digest_tells_a_file_from_two_with_the_same_bytes() -> None:
    assert pairs_digest([("a", "1" * 64)]) != pairs_digest([("b", "1" * 64)])
    assert pairs_digest([("a", "1"), ("b", "2")]) == pairs_digest([("b", "2"), ("a", "1")])


def test_the_tree_digest_refuses_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="symbolic link"):
        tree_digest(tmp_path)
