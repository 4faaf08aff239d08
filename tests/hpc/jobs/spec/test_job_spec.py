from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from conf import ConfigError
from hpc.jobs.errors import SpecChanged
from hpc.jobs.spec.job_spec import Environment, JobSpec, Source, read_spec
from serving.artifact.lineage import DatasetRef

KEYS = st.text(alphabet="abcdefgh_", min_size=1, max_size=6)
# "$" would be an interpolation; a resolved config has none but those of secrets.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="$"), max_size=12)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
CONFIGS = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_size=5,
)


def spec_of(config: dict, **changes: object) -> JobSpec:
    parts = {
        "task": "flights",
        "plain": config,
        "source": Source("a" * 64, "c0ffee", False),
        "project": None,
        "dataset": DatasetRef("flights", "b" * 64, "/data/flights/bbbb"),
        "environment": Environment("3.11.2", "e" * 64),
    }
    return JobSpec(**(parts | changes))  # type: ignore[arg-type]


def shuffled(value, seed: int):
    if isinstance(value, dict):
        items = [(key, shuffled(child, seed)) for key, child in value.items()]
        random.Random(seed).shuffle(items)
        return dict(items)
    return [shuffled(child, seed) for child in value] if isinstance(value, list) else value


@given(CONFIGS, st.integers())
def test_the_order_of_keys_does_not_move_the_digest(config, seed):
    assert spec_of(shuffled(config, seed)).digest == spec_of(config).digest


@given(CONFIGS, KEYS, LEAVES, LEAVES)
def test_any_changed_value_moves_the_digest(config, key, before, after):
    assume(repr(before) != repr(after))
    one, other = spec_of({**config, key: before}), spec_of({**config, key: after})
    assert one.digest != other.digest


@pytest.mark.parametrize(
    "change",
    [
        {"task": "lm"},
        {"source": Source("f" * 64, "c0ffee", False)},
        {"source": Source("a" * 64, "c0ffee", False, version="0.1.0")},
        {"project": Source("a" * 64, "c0ffee", False)},
        {"dataset": DatasetRef("flights", "0" * 64, "/data/flights/bbbb")},
        {"environment": Environment("3.11.2", "0" * 64)},
    ],
)
def test_code_data_and_environment_are_part_of_the_digest(change):
    assert spec_of({"a": 1}, **change).digest != spec_of({"a": 1}).digest


@settings(deadline=None)  # it waits for the disk
@given(CONFIGS)
@example({"note": "a\x85line"})
def test_what_is_written_reads_back_with_the_same_digest(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("run") / "spec.yaml"
    spec = spec_of(config)
    spec.write(path)
    assert read_spec(path, spec.digest).content() == spec.content()


def test_the_project_of_a_run_is_read_back(tmp_path: Path):
    spec = spec_of({}, project=Source("d" * 64, None, True))
    spec.write(tmp_path / "spec.yaml")
    assert read_spec(tmp_path / "spec.yaml", spec.digest).project == spec.project


def test_the_file_is_read_only(tmp_path: Path):
    spec_of({"a": 1}).write(tmp_path / "spec.yaml")
    assert (tmp_path / "spec.yaml").stat().st_mode & 0o777 == 0o444


def test_an_edited_value_is_refused(tmp_path: Path):
    path = tmp_path / "spec.yaml"
    spec = spec_of({"steps": 1000})
    spec.write(path)
    path.chmod(0o644)
    path.write_text(path.read_text().replace("steps: 1000", "steps: 1001"))
    with pytest.raises(SpecChanged, match="was changed after submit"):
        read_spec(path)


def test_an_edit_with_its_digest_made_to_fit_is_refused_by_who_remembers(tmp_path: Path):
    path = tmp_path / "spec.yaml"
    spec_of({"steps": 1001}).write(path)
    read_spec(path)  # consistent in itself
    with pytest.raises(SpecChanged, match=f"frozen was {spec_of({'steps': 1000}).digest[:12]}"):
        read_spec(path, spec_of({"steps": 1000}).digest)


@pytest.mark.parametrize("text", ["", "steps: 1", "digest: x\nspec: {}", "{", "- 1", "\x00"])
def test_what_is_no_spec_is_refused_by_name(tmp_path: Path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(SpecChanged, match=r"spec\.yaml is not a spec"):
        read_spec(path)
    with pytest.raises(SpecChanged, match="there is no spec"):
        read_spec(tmp_path / "nowhere" / "spec.yaml")


def test_a_later_format_is_refused(tmp_path: Path):
    path = tmp_path / "spec.yaml"
    document = {"digest": "x", "spec": {**spec_of({}).content(), "format": 5}}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(SpecChanged, match="spec format 5"):
        read_spec(path)


def test_what_json_cannot_say_cannot_be_frozen():
    with pytest.raises(ConfigError, match="cannot be frozen"):
        spec_of({"a": float("nan")}).digest  # noqa: B018


def test_the_config_of_a_spec_cannot_be_changed_or_misspelt():
    config = spec_of({"optim": {"lr": 0.1}}).config
    assert config.optim.lr == 0.1
    with pytest.raises(Exception, match="read-only"):
        config.optim.lr = 0.2
    with pytest.raises(Exception, match="lrr"):
        config.optim.lrr  # noqa: B018
