from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from conf import ConfigError
from hpc.jobs.errors import SecretInConfig
from hpc.jobs.spec.resolve import resolve


def config(**tree):
    return OmegaConf.create(tree)


def test_interpolations_are_resolved():
    assert resolve(config(a=1, b="${a}", c=["${b}"]), []) == {"a": 1, "b": 1, "c": [1]}


def test_an_interpolation_that_leads_nowhere_is_named():
    with pytest.raises(ConfigError, match="nowhere"):
        resolve(config(a="${nowhere}"), [])


def test_a_value_that_must_be_given_is_named():
    with pytest.raises(ConfigError, match=r"^b\.c: needs a value"):
        resolve(config(b={"c": "???"}), [])


@pytest.mark.parametrize(
    "name", ["password", "api_key", "hub_token", "token", "aws_secret", "db_passwd", "credentials"]
)
def test_a_secret_in_plain_text_is_refused_without_repeating_it(name):
    with pytest.raises(SecretInConfig) as refused:
        resolve(config(tracker={name: "hunter2-hunter2"}), [])
    assert f"tracker.{name} looks like a secret" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [
        "postgres://user:hunter2@db/x",
        "AKIAABCDEFGHIJKLMNOP",
        "ghp_" + "a" * 36,
        "hf_" + "b" * 34,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_what_has_the_shape_of_a_secret_is_refused_under_any_name(value):
    with pytest.raises(SecretInConfig, match=r"^note looks like a secret"):
        resolve(config(note=value), [])


@pytest.mark.parametrize("name", ["max_tokens", "eos_token", "tokenizer", "eval_tokens", "key"])
def test_words_about_tokens_are_no_secrets(name):
    assert resolve(config(**{name: "<eos>"}), []) == {name: "<eos>"}


def test_a_secret_stays_a_reference(monkeypatch):
    monkeypatch.setenv("HUB", "hunter2-hunter2")
    tree = config(hub={"token": "${oc.env:HUB}"}, password=None)
    assert resolve(tree, ["HUB"]) == {"hub": {"token": "${oc.env:HUB}"}, "password": None}


def test_a_variable_with_a_secret_name_is_a_secret_wherever_it_is_used(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hunter2-hunter2")
    assert resolve(config(header="${oc.env:MY_TOKEN}"), ["MY_TOKEN"]) == {
        "header": "${oc.env:MY_TOKEN}"
    }


def test_a_plain_variable_is_resolved(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert resolve(config(scratch="${oc.env:SCRATCH}"), []) == {"scratch": "/scratch"}


def test_a_secret_that_would_not_travel_is_refused(monkeypatch):
    monkeypatch.setenv("HUB", "hunter2-hunter2")
    with pytest.raises(SecretInConfig, match=r"cluster\.pass_environment=\[HUB\]"):
        resolve(config(token="${oc.env:HUB}"), [])


def test_a_secret_cannot_leak_through_another_key(monkeypatch):
    monkeypatch.setenv("HUB", "hunter2-hunter2")
    tree = config(token="${oc.env:HUB}", header="Bearer ${token}", items=["${token}"])
    with pytest.raises(SecretInConfig, match="header would repeat the secret of token"):
        resolve(tree, ["HUB"])
