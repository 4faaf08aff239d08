"""The registry's alias is a courtesy: whatever becomes of it, the rollout stands."""

from __future__ import annotations

import socket

from serving.fleet.rollout.production import point_alias


def test_a_site_without_mlflow_is_not_warned():
    assert point_alias("", "toy", 2) == ""


def test_a_registry_that_does_not_answer_is_a_sentence(monkeypatch):
    from serving import registry

    def down(*_: object) -> None:
        raise registry.RegistryError("the MLflow registry at http://far did not answer.")

    monkeypatch.setattr(registry.Registry, "set_alias", down)
    told = point_alias("http://far", "toy", 2)
    assert "toy/2 is in production" in told and "did not answer" in told


def test_the_alias_is_set_when_it_can_be(monkeypatch):
    from serving import registry

    pointed = []
    monkeypatch.setattr(registry.Registry, "set_alias", lambda self, *what: pointed.append(what))
    assert point_alias("http://here", "toy", 2) == ""
    assert pointed == [("toy", "production", 2)]


def test_a_registry_that_hangs_is_a_sentence_and_holds_up_nobody():
    """It takes the connection and says nothing, ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told = point_alias(f"http://127.0.0.1:{port}", "toy", 2, timeout_s=0.3)
        assert "toy/2 is in production" in told and "was not set in 0.3 s" in told
