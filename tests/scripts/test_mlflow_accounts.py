"""A real MLflow with the box's accounts: each identity does its own duty there and no other."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conf import compose
from conf.credentials import MLFLOW, password_file
from conf.site_schema import Site, site_config
from scripts.box import mlflow, passwords
from scripts.box.identity import REPO
from scripts.box.waiting import wait_until

pytest.importorskip("flask_wtf", reason="Flask-WTF is missing: run scripts/setup")
pytestmark = pytest.mark.slow

As = Callable[[str], Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """The site's MLflow, run by this user on a free port."""
    root = tmp_path_factory.mktemp("mlflow")
    site = site_config(compose("site", [f"site.root={root}", f"site.ports.mlflow={_free_port()}"]))
    for folder in (site.paths.mlflow, site.paths.etc, site.paths.passwords / MLFLOW):
        folder.mkdir(parents=True)
    for user in passwords.users(site, MLFLOW):
        password_file(site.paths.passwords, MLFLOW, user).write_text(f"password of {user}")
    (program,) = mlflow.programs(site)
    for file in program.files:
        file.path.write_text(file.text)
    env = {**program.env, "PYTHONPATH": str(REPO), "MLFLOW_FLASK_SERVER_SECRET_KEY": "key"}
    for _ in range(2):  # done twice changes nothing
        subprocess.run(
            [sys.executable, "-m", "scripts.box.mlflow_accounts"], input=mlflow.accounts(site),
            text=True, check=True, cwd=REPO, env=env,
        )  # fmt: skip
    # Without its sandbox: this user's Python, which may be a link, runs the server itself.
    own = next(n for n, word in enumerate(program.argv) if word.endswith("/bin/mlflow"))
    argv = [sys.executable, "-m", "mlflow", *program.argv[own + 1 :]]
    url = f"http://127.0.0.1:{site.ports.mlflow}"
    with (root / "log").open("w") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            # its first start migrates a database: minutes beside the suite's other stages
            wait_until(lambda: process.poll() is not None or _status(f"{url}/health") == 200, 300)
            assert _status(f"{url}/health") == 200, (root / "log").read_text()[-2000:]
            yield site, url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture
def client_of(server: tuple[Site, str], monkeypatch: pytest.MonkeyPatch) -> As:
    """A client with the account of an identity."""
    from mlflow import MlflowClient

    site, url = server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def client(role: str) -> Any:
        user = site.users.of(role)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"password of {user}")
        return MlflowClient(tracking_uri=url, registry_uri=url)

    return client


def refused(call: Callable[[], object]) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="403"):
        call()


def test_nobody_is_answered_without_an_account(server: tuple[Site, str]) -> None:
    _, url = server
    for path in ("experiments/search?max_results=1", "registered-models/search"):
        assert _status(f"{url}/api/2.0/mlflow/{path}") == 401
    assert _status(f"{url}/") == 401


def test_each_identity_does_its_own_duty_and_no_other(client_of: As) -> None:
    train = client_of("train")
    experiment = train.create_experiment("flights")
    run = train.create_run(experiment, tags={"lockgate.run": "r1"}).info.run_id
    train.log_metric(run, "loss", 0.5)
    train.set_terminated(run, "FINISHED")
    refused(lambda: train.create_registered_model("flights"))

    release = client_of("release")
    assert len(release.search_runs([experiment], "tags.`lockgate.run` = 'r1'")) == 1
    refused(lambda: release.log_metric(run, "loss", 0.0))
    release.create_registered_model("flights")
    made = release.create_model_version(
        "flights", "lockgate://store/flights/x", run_id=run, await_creation_for=0
    )
    release.set_registered_model_alias("flights", "candidate", made.version)

    deploy = client_of("deploy")
    deploy.set_registered_model_alias("flights", "production", made.version)
    refused(lambda: deploy.delete_model_version("flights", made.version))
    refused(lambda: deploy.delete_registered_model("flights"))
    refused(lambda: deploy.log_metric(run, "loss", 0.0))

    train = client_of("train")
    refused(lambda: train.delete_registered_model_alias("flights", "production"))
    refused(lambda: train.set_registered_model_alias("flights", "production", made.version))

    observe = client_of("observe")
    (seen,) = observe.search_registered_models()
    assert seen.aliases == {"candidate": made.version, "production": made.version}
    refused(lambda: observe.set_registered_model_alias("flights", "production", made.version))
    refused(lambda: observe.log_metric(run, "loss", 0.0))


def test_a_site_whose_models_were_registered_before_there_were_accounts_goes_on(
    client_of: As, server: tuple[Site, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client_of("train")  # the environment; root's account is set over it
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "root")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "password of root")
    from mlflow import MlflowClient

    root = MlflowClient(tracking_uri=server[1], registry_uri=server[1])
    root.create_registered_model("older")
    experiment = root.create_experiment("older")
    client_of("train").create_run(experiment)
    release = client_of("release")
    release.create_model_version("older", "lockgate://store/older/x", await_creation_for=0)


def test_the_database_holds_no_password(server: tuple[Site, str]) -> None:
    site, _ = server
    stored = b"".join(path.read_bytes() for path in Path(site.paths.mlflow).glob("accounts.db*"))
    assert b"lg-train" in stored and b"password of" not in stored
