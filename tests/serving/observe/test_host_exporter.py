"""A host's verification as metrics: by the program as a host runs it, and with odd state files."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.observe import host_exporter
from serving.observe.host_exporter import LastVerification, metrics_page, read_verification

GOOD = {"at": "2026-01-02T03:04:05Z", "ok": True, "faults": []}
AT = 1767323045.0
PREFIX = "lockgate_host_verification_"


def shown(path: Path) -> dict[str, float]:
    families = text_string_to_metric_families(metrics_page(path, path.with_name("answers.json")))
    return {
        sample.name.removeprefix(PREFIX): sample.value for one in families for sample in one.samples
    }


ASKED = {
    "at": "2026-01-02T03:04:05Z",
    "ok": True,
    "seconds": 0.25,
    "detail": "",
    "failed_in_row": 0,
}


def questions(path: Path) -> dict[tuple[str, str, str], float]:
    page = metrics_page(path.with_name("verified.json"), path)
    return {
        (sample.name.removeprefix("lockgate_host_golden_"), *sample.labels.values()): sample.value
        for one in text_string_to_metric_families(page)
        for sample in one.samples
    }


def test_golden_questions_by_model_and_version(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    assert questions(path) == {}
    path.write_text(json.dumps({"toy": {"1": ASKED, "2": ASKED | {"ok": False, "seconds": 2}}}))
    assert questions(path) == {
        ("ok", "toy", "1"): 1, ("timestamp_seconds", "toy", "1"): AT, ("seconds", "toy", "1"): 0.25,
        ("ok", "toy", "2"): 0, ("timestamp_seconds", "toy", "2"): AT, ("seconds", "toy", "2"): 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        7, {"toy": 7}, {"toy": {"x": ASKED}}, {'a"} 1\n': {"1": ASKED}}, {"toy": {"1": {}}},
        {"toy": {"1": ASKED | {"seconds": float("nan")}}}, {"toy": {"1": ASKED | {"ok": 1}}},
        {"toy": {"1": ASKED | {"at": "x"}}}, {"toy": {str(n): ASKED for n in range(1, 60)}},
    ],
)  # fmt: skip
def test_golden_questions_that_cannot_be_understood_are_of_long_ago(
    tmp_path: Path, content: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content))
    assert questions(path) == {("timestamp_seconds",): 0}
    assert "answers.json cannot be read" in capsys.readouterr().err


def test_a_good_and_a_faulty_verification(tmp_path: Path) -> None:
    path = tmp_path / "verified.json"
    path.write_text(json.dumps(GOOD))
    assert shown(path) == {"success": 1, "faults": 0, "timestamp_seconds": AT}
    path.write_text(json.dumps(GOOD | {"ok": False, "faults": ["flights/3: changed-file", {}]}))
    assert shown(path) == {"success": 0, "faults": 2, "timestamp_seconds": AT}
    path.write_text(json.dumps(GOOD | {"at": "2026-01-02T04:04:05+01:00", "more": 1}))
    assert read_verification(path) == LastVerification(AT, True, 0)


def test_a_host_that_never_verified_itself_has_no_series(tmp_path: Path) -> None:
    assert metrics_page(tmp_path / "verified.json", tmp_path / "answers.json") == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "[" * 100_000,
        '{"at": "2026-01-02T03:04:05Z", "ok": tru',
        json.dumps(GOOD | {"ok": 1}),
        json.dumps(GOOD | {"faults": None}),
        json.dumps(GOOD | {"at": "yesterday"}),
        json.dumps(GOOD | {"at": "2026-01-02T03:04:05"}),
        json.dumps(GOOD | {"at": 7}),
        json.dumps(GOOD | {"more": "x" * (2 << 20)}),
    ],
)
def test_a_file_that_cannot_be_understood_is_a_verification_that_failed(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "verified.json"
    path.write_text(text)
    assert shown(path) == {"success": 0}
    assert f"{path} cannot be read" in capsys.readouterr().err


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=9).map(lambda at: json.dumps(GOOD | {"at": at})))
def test_no_content_makes_the_page_fall_over(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    path = tmp_path_factory.mktemp("state") / "verified.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert "success" in shown(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_script_alone_serves_the_metrics_and_nothing_else(tmp_path: Path) -> None:
    path, port = tmp_path / "verified.json", free_port()
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"toy": {"1": ASKED}}))
    path.write_text(json.dumps(GOOD))
    argv = [sys.executable, "-I", "-S", str(Path(host_exporter.__file__)), "--state", str(path)]
    argv += ["--answers", str(answers), "--address", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd="/") as process:
        page, end = "", time.monotonic() + 30
        while not page and process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{url}/metrics", timeout=5) as reply:
                    page = reply.read().decode()
            except urllib.error.URLError:
                time.sleep(0.05)
        assert page == metrics_page(path, answers) and "golden_ok" in page
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/../verified.json", timeout=5)
        taken = subprocess.run(argv, capture_output=True, text=True, cwd="/", timeout=30)
        assert taken.returncode == 1 and f"127.0.0.1:{port}" in taken.stderr
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert errors == ""
