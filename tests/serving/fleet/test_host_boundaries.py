"""One real host, and what the deploy key, a neighbour and a swapped file cannot do on it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from serving.fleet.cli import command
from serving.fleet.cli.revoke import revoke
from serving.fleet.cli.status import fleet_status
from serving.fleet.errors import FleetConfigError
from serving.fleet.rollout.lease import LeaseLost
from serving.fleet.ssh import transfer
from serving.fleet.ssh.connection import open_shell
from serving.fleet.ssh.verbs import HostVerbs, PackageRefused
from serving.triton.grpc_client import TritonClient
from tests.serving.fleet import bed as beds

pytestmark = beds.MARKS


@pytest.fixture(scope="module")
def bed():
    made = beds.bed_up(1)
    try:
        for version in (1, 2):
            made.publish(version, float(version))
            result = deploy(made, version)
            assert result.outcome.kind == "done", result.outcome
        yield made
    finally:
        made.down()


@pytest.fixture
def verbs(bed):
    shell = open_shell(host_of(bed), bed_ssh(bed))
    yield HostVerbs(shell, HostVerbs(shell).call("facts", "all")["fence"])
    shell.close()


def on(bed):
    return command.controls(OmegaConf.merge(bed.config, {"rollout": {"settle_s": 0.2}}))


def deploy(bed, version):
    return command.deploy(on(bed), "toy", version, lambda *_: None)


def host_of(bed):
    return on(bed).fleet.host("a")


def bed_ssh(bed):
    return on(bed).fleet.ssh_of(host_of(bed))


def home(bed) -> Path:
    return bed.root / "hosts" / "a"


def ssh_argv(bed, user: str, program: str = "ssh") -> list[str]:
    site = bed.site
    port = "-P" if program in ("scp", "sftp") else "-p"
    return [
        program, "-F", "none", port, str(site.ports.ssh), "-i", str(site.paths.deploy_key),
        "-o", f"UserKnownHostsFile={site.paths.known_hosts}", "-o", "BatchMode=yes",
        "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
        *([f"{user}@{site.hosts['a'].address}"] if program == "ssh" else []),
    ]  # fmt: skip


def run(argv: list[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, **options
    )


@pytest.mark.parametrize("role", ["verify", "host"])
@pytest.mark.parametrize(
    "wanted", ["", "id", "bash -i", "cat /etc/passwd", "sh -c 'touch {tmp}'", "touch {tmp}"]
)
def test_the_deploy_key_gets_no_shell_and_runs_no_command(bed, tmp_path, role, wanted):
    tmp_path.chmod(0o777)
    line = wanted.format(tmp=tmp_path / "made")
    done = run([*ssh_argv(bed, bed.site.users.of(role)), *([line] if line else [])])
    assert done.returncode != 0
    assert "uid=" not in done.stdout and "root:" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ["verify", "host"])
@pytest.mark.parametrize("program", ["scp", "sftp"])
@pytest.mark.parametrize("folder", ["etc", "packages/toy/2/version", "model-repository/toy/2"])
def test_the_deploy_key_copies_no_file(bed, tmp_path, role, program, folder):
    (tmp_path / "model.py").write_text("evil")
    target = f"{bed.site.users.of(role)}@{bed.site.hosts['a'].address}:{home(bed)}/{folder}/"
    argv = [*ssh_argv(bed, "", program)]
    argv += [str(tmp_path / "model.py"), target] if program == "scp" else [target]
    assert run(argv).returncode != 0
    text = (home(bed) / "model-repository" / "toy" / "2" / "model.py").read_text()
    assert text == beds.MODEL_PY


@pytest.mark.parametrize(
    "target",
    [
        "{home}/packages/toy/2/", "{home}/model-repository/toy/2/", "{home}/etc/", "/tmp/",
        "../packages/toy/2/", "toy-9/../../packages/toy/2/",
    ],
)  # fmt: skip
def test_the_receiving_account_writes_below_staging_only(bed, tmp_path, target):
    (tmp_path / "stranger.py").write_text("evil")
    user, address = bed.site.users.host, bed.site.hosts["a"].address
    shell = " ".join(ssh_argv(bed, "")[:-1])
    where = target.format(home=home(bed))
    run(["rsync", "-r", "--rsh", shell, f"{tmp_path}/", f"{user}@{address}:{where}"])
    found = [*home(bed).rglob("stranger.py"), *Path("/tmp").glob("stranger.py")]
    assert [path for path in found if not path.is_relative_to(home(bed) / "staging")] == []
    run(["rm", "-rf", *map(str, (home(bed) / "staging").iterdir())])


def test_the_receiving_account_reads_nothing(bed, tmp_path):
    user, address = bed.site.users.host, bed.site.hosts["a"].address
    shell = " ".join(ssh_argv(bed, "")[:-1])
    done = run(["rsync", "-r", "--rsh", shell, f"{user}@{address}:.", f"{tmp_path}/"])
    assert done.returncode != 0 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ["verify", "host"])
def test_the_deploy_key_forwards_to_inference_only(bed, role):
    site = bed.site
    address, user = site.hosts["a"].address, site.users.of(role)
    sock = f"{home(bed)}/run/triton/grpc.sock:8001"
    closed = [f"{address}:{site.ports.triton_metrics}", f"{address}:{site.ports.ssh}",
              f"127.0.0.1:{site.edges['us-east'].http_port}", sock]  # fmt: skip
    closed += [f"{address}:{site.ports.triton_http}"] if role == "host" else []
    for target in closed:
        done = run([*ssh_argv(bed, user)[:-1], "-W", target, f"{user}@{address}"])
        assert done.returncode != 0, target
        assert "prohibited" in done.stderr or "failed" in done.stderr, done.stderr


def test_what_is_swapped_in_staging_after_the_verification_is_not_activated(bed, verbs):
    version = 3
    bed.publish(version, 3.0)
    shipment = command.read_shipment(bed.store, "toy", version)
    verbs_of_staging = transfer.TransferLimits(0, 0)
    transfer.stage(verbs, shipment, verbs_of_staging, False)
    evil = home(bed) / "staging" / "toy-3" / "version" / "model.py"
    script = f"mkdir -p {evil.parent} && echo evil > {evil}"
    assert run(beds.as_user(bed.site.users.host, "sh", "-c", script)).returncode == 0
    verbs.call("install", "toy", version)
    verbs.call("serve", "toy", "2,3", timeout_s=60)
    for folder in ("packages/toy/3/version", "model-repository/toy/3"):
        assert (home(bed) / folder / "model.py").read_text() == beds.MODEL_PY
        denied = run(beds.as_user(bed.site.users.host, "cp", str(evil), f"{home(bed)}/{folder}/"))
        assert denied.returncode != 0
    assert bed.ask(1.0) == 3.0
    verbs.call("serve", "toy", "1,2", rollback=True, timeout_s=60)
    verbs.call("prune", "toy", "1,2", 0)
    # The next preparation does not begin with what was left there.
    assert verbs.call("prepare", "toy", 3)["ready"] is None
    assert not evil.exists()
    for path in (home(bed) / "staging").iterdir():
        shutil.rmtree(path)
    shutil.rmtree(bed.store / "toy" / "3")


def test_an_older_signed_version_passes_only_as_a_rollback(bed, verbs):
    with pytest.raises(PackageRefused, match="older-version"):
        verbs.call("serve", "toy", "1", timeout_s=60)
    with pytest.raises(PackageRefused, match="older-version"):
        verbs.call("persist", "toy", "1")
    report = command.rollback(on(bed), "toy", 1, lambda *_: None)
    assert report.outcome.kind == "done", report
    assert bed.ask(1.0) == 1.0


def test_odd_names_cost_nothing(bed):
    for name in ("model-repository/toy/3.bak", "packages/toy/007", "model-repository/toy/x\u2028y"):
        (home(bed) / name).mkdir()
    status = fleet_status(on(bed))
    assert not status.drifts, status
    assert "a: model-repository/toy/3.bak is no version, and is left alone." in status.notes
    assert [row.answers for row in status.rows] == [1]
    state = _state(bed)
    assert "model-repository/toy/3.bak" in state.odd and "packages/toy/007" in state.odd


def _state(bed):
    with command.SshDriver(on(bed).fleet, "toy", bed.store, on(bed).config) as driver:
        return driver.read_host(host_of(bed))


def test_a_changed_file_of_the_repository_is_seen_and_not_started_again(bed, verbs):
    model = bed.repository("a") / "toy" / "1" / "model.py"
    model.parent.chmod(0o755)
    model.chmod(0o644)
    model.write_text(beds.MODEL_PY.replace("y = (x", "y = (1 + x"))
    status = fleet_status(on(bed))
    assert status.drifts and "toy/1 in its repository: changed-file" in str(status.rows[0].drift)
    record = json.loads((home(bed) / "state" / "verified.json").read_text())
    assert not record["ok"] and record["faults"][0]["model"] == "toy"
    verbs.call("restart", timeout_s=60)
    beds.wait_for(lambda: bed.edge().state("a").up, 60)
    assert not model.exists(), "taken out before Triton started"
    with pytest.raises(urllib.error.HTTPError):
        bed.ask(1.0)
    assert command.heal(on(bed), "toy", lambda *_: None).outcome.kind == "done"
    assert bed.ask(1.0) == 1.0 and not fleet_status(on(bed)).drifts


def test_a_revoked_version_is_refused(bed):
    bed.publish(4, 4.0)
    with pytest.raises(FleetConfigError, match="--reason"):
        revoke(on(bed), "toy", 4, " ", lambda *_: None)
    with pytest.raises(FleetConfigError, match="in production"):
        revoke(on(bed), "toy", 1, "a test", lambda *_: None)
    assert "toy/4 is revoked on 1 hosts" in revoke(on(bed), "toy", 4, "a test", lambda *_: None)
    event = on(bed).journal.events("toy")[-1]
    assert (event.event, event.version, event.content["reason"]) == ("revoked", 4, "a test")
    assert on(bed).journal.unfinished("toy") is None
    report = deploy(bed, 4)
    assert (report.outcome.kind, report.exit_code) == ("refused", 4)
    assert "revoked" in report.outcome.reason
    assert bed.ask(1.0) == 1.0
    assert list((home(bed) / "staging").iterdir()) == []


NEIGHBOURS = ("nobody", "lg-host", "lg-deploy", "lg-train", "lg-observe")


@pytest.mark.parametrize("user", NEIGHBOURS)
def test_a_neighbour_cannot_reach_the_sockets(bed, user):
    for path in ("run/triton/grpc.sock:8001", "watch/verify.sock", "run/supervisor.sock"):
        script = (
            "import socket; s = socket.socket(socket.AF_UNIX); "
            f"s.connect({str(home(bed) / path)!r})"
        )
        done = run(beds.as_user(user, "/usr/bin/python3", "-c", script))
        assert "PermissionError" in done.stderr, (path, done.stderr)


def test_nobody_controls_a_hosts_triton_over_tcp(bed):
    site = bed.site
    address = site.hosts["a"].address
    url = f"http://{address}:{site.ports.triton_http}"
    command_line = _command_line(bed)
    shown = command_line.split("--http-restricted-api=")[1].split("\0")[0]
    header, value = shown.split(":", 1)[1].split("=", 1)
    for path in ("/v2/repository/models/toy/unload", "/v2/repository/models/toy/load",
                 "/v2/repository/index", "/v2/systemsharedmemory/status",
                 "/v2/logging"):  # fmt: skip
        method = "POST" if "repository" in path else "GET"
        # Even with what every user can read in /proc.
        for carried in ({}, {header: value.strip()}, {header: value.strip() + " "}):
            request = urllib.request.Request(url + path, b"{}", carried, method=method)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=10)
            assert refused.value.code == 403, path
    folded = f"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\n{header}:\r\n{value}\r\n"
    with socket.create_connection((address, site.ports.triton_http), timeout=10) as link:
        link.sendall(f"{folded}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        assert b" 200 " not in link.recv(200)
    for port in (8001, site.ports.triton_http, site.ports.triton_metrics):
        with TritonClient(f"{address}:{port}", timeout_s=3) as client:
            assert not client.is_live(2)
    assert bed.ask(1.0) == 1.0


def _command_line(bed) -> str:
    wanted = f"--model-repository={bed.repository('a')}"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_text()
        except OSError:
            continue
        if wanted in text.split("\0"):
            return text
    raise AssertionError("no tritonserver of the bed runs")


def test_a_controller_that_lost_the_fleet_changes_nothing(bed, verbs):
    newer = HostVerbs(verbs.shell, verbs.fence + 1000)
    newer.call("prune", "toy", "1", 5)
    older = HostVerbs(verbs.shell, verbs.fence + 999)
    for words in (("serve", "toy", "1"), ("persist", "toy", "none"), ("withdraw", "toy")):
        with pytest.raises(LeaseLost, match="newer controller"):
            older.call(*words, rollback=True)
    assert bed.ask(1.0) == 1.0


def test_the_agent_port_shows_one_verdict_and_takes_nothing(bed):
    endpoint = (bed.site.hosts["a"].address, bed.site.ports.host_agent)
    for sent in (b"", b"down\n", b"GET / HTTP/1.1\r\n\r\n", bytes(1 << 20)):
        with socket.create_connection(endpoint, timeout=5) as link:
            try:
                link.sendall(sent)
                shown = link.makefile("rb").read()
            except ConnectionError:  # it closes without reading what it was sent
                continue
        assert shown == b"up\n"
    with socket.create_connection(endpoint, timeout=5) as link:
        shown = link.makefile("rb").read()
    assert shown == b"up\n"
