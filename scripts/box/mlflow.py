"""The MLflow server: experiments and the registry of versions, in SQLite, artifacts beside it."""

from __future__ import annotations

from conf.site_schema import Site
from scripts.box.identity import REPO, environment
from scripts.box.probe import http_ok
from scripts.box.program import Folder, Port, Program

LOOPBACK = "127.0.0.1"


def folders(site: Site) -> list[Folder]:
    user = site.users.observe
    return [Folder(site.paths.mlflow, user, user)]


def programs(site: Site) -> list[Program]:
    port, here = site.ports.mlflow, site.paths.mlflow
    return [
        Program(
            name="mlflow",
            argv=(
                str(REPO / ".venv/bin/mlflow"), "server",
                "--host", LOOPBACK, "--port", str(port),
                "--backend-store-uri", f"sqlite:///{here / 'mlflow.db'}",
                # Clients send artifacts to the server: they need no access to its folder.
                "--artifacts-destination", str(here / "artifacts"),
                "--workers", "1",
                # MLflow refuses requests whose Host header it does not know, against DNS rebinding.
                "--allowed-hosts", f"{LOOPBACK}:{port},localhost:{port}",
            ),
            user=site.users.observe,
            env={
                **environment(site, "observe"),
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "true",
            },
            ports=(Port(LOOPBACK, port, "site.ports.mlflow"),),
            probe=http_ok(f"http://{LOOPBACK}:{port}/health"),
            kills_group=True,
        )
    ]  # fmt: skip
