"""Every identity tries every guarded thing of a running site; the answers are the table's."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conf.credentials import ALERTMANAGER, MLFLOW, PROMETHEUS, password_file
from conf.site_schema import Site
from scripts.box import hosts, mariadb, munge, supervisor
from scripts.box.identity import environment
from serving.release.signing import signer_command
from tests.boundaries.attempts import ATTEMPTS
from tests.boundaries.table import IDENTITIES, TABLE, page

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
START, END = "<!-- table: tests/boundaries/table.py -->", "<!-- end of table -->"


def site_as_json(site: Site, user: str) -> dict[str, Any]:
    """Paths, addresses and commands of the site for attempts.py, as `user` would use them."""
    host = next(iter(site.hosts))
    here, address = site.paths.hosts / host, site.hosts[host].address
    edge = next(iter(site.edges.values()))
    server = hosts.triton(site, host)

    def password(service: str) -> str:
        return str(password_file(site.paths.passwords, service, user))

    paths = {
        "release_key": site.paths.release_key,
        "deploy_key": site.paths.deploy_key,
        "munge_key": munge.key(site),
        "gates": site.paths.gates,
        "store": site.paths.store,
        "runs": site.paths.runs,
        "data": site.paths.data,
        "journal": site.paths.journal,
        "staging": here / "staging",
        "packages": here / "packages",
        "repository": here / "model-repository",
        "host_etc": here / "etc",
        "triton_grpc": server.grpc_target.removeprefix("unix:"),
        "host_supervisor": supervisor.host_socket(here),
        "site_supervisor": supervisor.socket(site),
        "haproxy": edge.socket,
        "edge_log": site.paths.edge_log,
        "mariadb": mariadb.socket(site),
        "mlflow_db": site.paths.mlflow / "mlflow.db",
        "slurm_conf": site.paths.slurm_conf,
        "triton_index": f"http://{address}:{site.ports.triton_http}/v2/repository/index",
        "edge_index": f"{edge.url}/v2/repository/index",
        "mlflow_runs": f"{site.mlflow_uri}/api/2.0/mlflow/experiments/search",
        "mlflow_runs_password": password(MLFLOW),
        "prometheus": f"{site.prometheus_url}/api/v1/query?query=up",
        "prometheus_password": password(PROMETHEUS),
        "alertmanager": f"http://127.0.0.1:{site.ports.alertmanager}/api/v2/alerts",
        "alertmanager_password": password(ALERTMANAGER),
    }
    ssh = [
        *("ssh", "-F", "none", "-p", str(site.ports.ssh), "-i", str(site.paths.deploy_key)),
        *("-o", f"UserKnownHostsFile={site.paths.known_hosts}", "-o", "BatchMode=yes"),
        *("-o", "IdentitiesOnly=yes", f"{site.users.verify}@{address}", "id"),
    ]
    signer = signer_command(site.paths.release_key, site.paths.signed)
    return {
        **{key: str(value) for key, value in paths.items()},
        "door": [address, site.ports.triton_grpc],
        "things": [thing.name for thing in TABLE],
        "sign": ["sudo", "-n", "-u", site.users.sign, *signer],
        "as_candidate": ["sudo", "-n", "-u", site.users.candidate, "true"],
        "login": ssh,
    }


@pytest.fixture(scope="module")
def answers(box: Any) -> dict[str, dict[str, str]]:
    """identity -> thing -> "done" or the reason of the refusal."""
    return {name: tried_by(box.site, name) for name in IDENTITIES}


def tried_by(site: Site, identity: str) -> dict[str, str]:
    known = identity != "nobody"
    user = site.users.of(identity) if known else identity
    argument = json.dumps(site_as_json(site, user))
    env = environment(site, identity) if known else {"PATH": os.environ["PATH"]}
    pairs = [f"{key}={value}" for key, value in env.items()]
    done = subprocess.run(
        ["runuser", "-u", user, "--", "env", "-i", *pairs, "/usr/bin/python3", "-I", "-", argument],
        stdin=(HERE / "attempts.py").open("rb"), capture_output=True, text=True, cwd="/",
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.site
@pytest.mark.parametrize("thing", TABLE, ids=lambda thing: thing.name)
def test_the_answers_of_the_site_are_the_tables(thing: Any, answers: Any) -> None:
    done = {name for name in IDENTITIES if answers[name][thing.name] == "done"}
    reasons = {name: answers[name][thing.name] for name in IDENTITIES}
    assert done == thing.allowed, json.dumps(reasons, indent=2)


def test_every_thing_is_tried_and_every_attempt_is_in_the_table() -> None:
    assert [thing.name for thing in TABLE] == list(ATTEMPTS)


def test_the_guide_prints_this_table() -> None:
    guide = (REPO / "docs/security.md").read_text(encoding="utf-8")
    printed = guide.split(START)[1].split(END)[0].strip().splitlines()
    assert printed == page(), "python -m tests.boundaries.table prints the table for the guide"
