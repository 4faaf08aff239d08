"""Version numbers against a real MLflow: what crashes leave, and a registry that was lost."""

import socket

import pytest

from serving.registry import CANDIDATE, DIGEST_TAG, Registry, RegistryError

pytestmark = pytest.mark.slow  # MLflow takes seconds to import and to make its tables

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


@pytest.fixture
def registry(mlflow_db: str) -> Registry:
    return Registry(mlflow_db)


def test_numbers_count_up_and_a_killed_releases_number_is_used_again(registry: Registry) -> None:
    assert registry.number_for("flights", ONE, "run-1", {}) == 1
    assert registry.number_for("flights", ONE, "run-1", {}) == 1
    assert registry.number_for("flights", TWO, "run-2", {1: ONE}) == 2
    assert registry.number_for("lm", ONE, "run-3", {}) == 1


def test_what_another_killed_release_left_is_deleted(registry: Registry) -> None:
    assert registry.number_for("flights", ONE, "run-1", {}) == 1
    assert registry.number_for("flights", TWO, "run-2", {}) == 2
    assert [int(one.version) for one in registry._versions("flights")] == [2]


def test_a_version_that_somebody_registered_by_hand_is_left_alone(registry: Registry) -> None:
    registry._call("create_registered_model", "flights")
    registry._call("create_model_version", "flights", source="lockgate://store/by/hand")
    assert registry.number_for("flights", ONE, "run-1", {}) == 2
    assert len(registry._versions("flights")) == 2


def test_a_lost_registry_is_filled_from_the_store(registry: Registry) -> None:
    assert registry.number_for("flights", THREE, "run-9", {1: ONE, 3: TWO}) == 4
    known = {int(one.version): one.tags[DIGEST_TAG] for one in registry._versions("flights")}
    assert known == {1: ONE, 3: TWO, 4: THREE}


def test_an_alias_names_one_version_and_nothing_before(registry: Registry) -> None:
    assert registry.version_of("flights", CANDIDATE) is None
    for run, digest in (("run-1", ONE), ("run-2", TWO)):
        store = {1: ONE} if digest == TWO else {}
        registry.set_alias("flights", CANDIDATE, registry.number_for("flights", digest, run, store))
    assert registry.version_of("flights", CANDIDATE) == 2
    registry.set_alias("flights", CANDIDATE, 1)
    assert registry.version_of("flights", CANDIDATE) == 1


def test_a_registry_that_is_down_is_a_sentence_and_soon() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RegistryError, match="Is it up"):
        Registry(uri).version_of("flights", CANDIDATE)
