from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hpc.jobs.errors import SchedulerUnavailable
from hpc.jobs.exporter.poll import QueueSnapshot, poll_slurm
from hpc.jobs.exporter.server import QueueCollector, make_exporter
from hpc.jobs.exporter.target import is_own_target
from hpc.jobs.run.files import TargetFile, write_run_file
from hpc.jobs.run.folder import Run
from hpc.jobs.slurm.nodes import parse_nodes
from tests.hpc.jobs.slurm.test_jobs import USER, squeue_json
from tests.hpc.jobs.test_queue import job_file, make_run

QUEUE = squeue_json(
    (1, "lm-20260101-000001-aaaaaa", "RUNNING", USER, "gpu"),
    (2, "b", "PENDING", "other", "gpu,cpu"),
    (3, "c|d", "PENDING", "other", "gpu"),
    (4, "e", "STOPPED", "other", "cpu"),
    (5, "over", "COMPLETED", "other", "cpu"),  # listed until MinJobAge
    (6, "lm-20260101-000002-bbbbbb", "RUNNING", "other", "cpu"),  # called like a run
)
NODES = (
    "n1|allocated|gpu\nn1|allocated|cpu\nn2|down*|gpu\nn3|idle~|cpu\nn4|planned|cpu\n"
    "n5|mixed#|cpu\nn6|down~|cpu\n"
)


ADDRESSES = "n1|127.0.0.1\nn2|10.0.0.2\nn2|10.0.0.2\nn3|n3\nn4|n4\n"


def on_node(queue: str, node: str) -> str:
    """`squeue --json` with every job's first node."""
    document = json.loads(queue)
    for job in document["jobs"]:
        job["batch_host"] = node
    return json.dumps(document)


def answers(command):
    if command[0] == "squeue":
        return on_node(QUEUE, "n1")
    return ADDRESSES if command[-1].endswith("%o") else NODES


def refuses(command):
    raise SchedulerUnavailable(f"{command[0]} did not answer")


def serving(runs: Path, name: str, target: str = "127.0.0.1:42420") -> Run:
    run = make_run(runs, name, job_file(), "running")
    write_run_file(run.target, TargetFile(target))
    return run


def test_jobs_and_nodes_are_counted_with_zeros_for_the_common_states(tmp_path):
    seen = poll_slurm(QueueSnapshot(), answers, tmp_path)
    assert seen.jobs is not None and seen.nodes is not None
    assert seen.jobs["gpu", "running"] == 1
    assert seen.jobs["gpu", "pending"] == 2
    assert seen.jobs["gpu", "suspended"] == 0
    assert seen.jobs["cpu", "other"] == 1
    assert sum(seen.jobs.values()) == 5
    assert {state: count for state, count in seen.nodes.items() if count} == {
        "allocated": 1, "down": 2, "powered_down": 1, "powering_up": 1, "other": 1,
    }  # fmt: skip


def test_a_node_in_two_partitions_is_one_node():
    assert sum(parse_nodes(NODES)[0].values()) == 6


def test_what_failed_has_no_series_and_keeps_the_time_of_its_last_success(tmp_path, caplog):
    first = poll_slurm(QueueSnapshot(), answers, tmp_path, clock=lambda: 100.0)
    second = poll_slurm(first, refuses, tmp_path, clock=lambda: 200.0)
    assert (second.jobs, second.nodes) == (None, None)
    assert not second.health["jobs"].success
    assert second.health["jobs"].last_success == 100.0
    assert second.health["targets"].success
    assert "jobs: squeue did not answer" in caplog.messages


def test_output_that_is_not_understood_is_a_failure_not_a_crash(tmp_path):
    seen = poll_slurm(QueueSnapshot(), lambda _: "Slurm says something new\n", tmp_path)
    assert not seen.health["jobs"].success
    assert not seen.health["nodes"].success


def test_running_jobs_are_found_and_a_file_left_by_a_killed_one_is_not_a_target(tmp_path):
    serving(tmp_path, "lm-20260101-000001-aaaaaa")
    serving(tmp_path, "lm-20260101-000002-bbbbbb")
    assert poll_slurm(QueueSnapshot(), answers, tmp_path).targets == [
        {
            "targets": ["127.0.0.1:42420"],
            "labels": {"run": "lm-20260101-000001-aaaaaa", "task": "flights"},
        }
    ]


def test_while_slurm_is_silent_targets_stay(tmp_path):
    serving(tmp_path, "lm-20260101-000001-aaaaaa")
    seen = poll_slurm(QueueSnapshot(), answers, tmp_path)
    assert len(poll_slurm(seen, refuses, tmp_path).targets) == 1


def test_without_slurms_word_no_file_makes_a_target(tmp_path):
    serving(tmp_path, "lm-20260101-000001-aaaaaa")
    assert poll_slurm(QueueSnapshot(), refuses, tmp_path).targets == []


@pytest.mark.parametrize(
    ("target", "is_found"),
    [
        ("127.0.0.1:42420", True),  # NodeAddr of the job's node
        ("n1:42420", True),  # its name
        ("10.0.0.2:42420", False),  # another node's
        ("10.9.9.9:42420", False),
        ("127.0.0.1:19093", False),  # a daemon of the site
        ("127.0.0.1:99999", False),
    ],
)
def test_a_job_is_scraped_at_its_own_node_and_at_no_daemons_port(tmp_path, target, is_found):
    serving(tmp_path, "lm-20260101-000001-aaaaaa", target)
    assert len(poll_slurm(QueueSnapshot(), answers, tmp_path).targets) == int(is_found)


@pytest.mark.parametrize(
    "target",
    ["n1:\u0664\u0662\u0664\u0662\u0660", "n1:42420/../x", "user@n1:42420", "n1", "", "n1:042420"],
)
def test_what_is_no_host_and_port_is_nobodys_target(target):
    assert not is_own_target(target, {"n1"})


def test_addresses_stay_known_while_sinfo_is_silent(tmp_path):
    serving(tmp_path, "lm-20260101-000001-aaaaaa")
    seen = poll_slurm(QueueSnapshot(), answers, tmp_path)

    def without_sinfo(command):
        return refuses(command) if command[0] == "sinfo" else answers(command)

    assert poll_slurm(seen, without_sinfo, tmp_path).targets == seen.targets


@pytest.fixture()
def server():
    collector = QueueCollector()
    running = make_exporter(collector, 0)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield collector, f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()


def samples(url: str) -> dict[tuple, float]:
    text = urllib.request.urlopen(f"{url}/metrics", timeout=10).read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_scrapes_read_the_last_look_and_never_ask_slurm(server, tmp_path):
    collector, url = server
    asked = []

    def counted(command):
        asked.append(command[0])
        return answers(command)

    collector.snapshot = poll_slurm(QueueSnapshot(), counted, tmp_path)
    for _ in range(5):
        got = samples(url)
    assert got["lockgate_slurm_jobs", ("partition", "gpu"), ("state", "pending")] == 2
    assert got["lockgate_slurm_collector_success", ("collector", "jobs")] == 1
    assert asked == ["sinfo", "squeue", "sinfo"]
    collector.snapshot = poll_slurm(collector.snapshot, refuses, tmp_path)
    got = samples(url)
    assert [name for name, *_ in got if name == "lockgate_slurm_jobs"] == []
    assert got["lockgate_slurm_collector_success", ("collector", "jobs")] == 0


def test_no_job_and_no_run_is_a_label(server, tmp_path):
    collector, url = server
    serving(tmp_path, "lm-20260101-000001-aaaaaa")
    collector.snapshot = poll_slurm(QueueSnapshot(), answers, tmp_path)
    labels = {label for _, *labels in samples(url) for label, _ in labels}
    assert labels == {"partition", "state", "collector"}


def test_service_discovery_is_json_and_empty_is_a_list(server, tmp_path):
    collector, url = server
    assert json.load(urllib.request.urlopen(f"{url}/sd/train", timeout=10)) == []
    serving(tmp_path, "lm-20260101-000001-aaaaaa")
    collector.snapshot = poll_slurm(QueueSnapshot(), answers, tmp_path)
    (group,) = json.load(urllib.request.urlopen(f"{url}/sd/train", timeout=10))
    assert group["labels"]["run"] == "lm-20260101-000001-aaaaaa"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/debug", timeout=10)


def test_metrics_are_in_the_format_that_the_scraper_takes(server):
    _, url = server
    answer = urllib.request.urlopen(f"{url}/metrics?name[]=x", timeout=10)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")


def test_broken_runs_are_counted_without_their_names(server, tmp_path):
    collector, url = server
    serving(tmp_path, "lm-20260101-000001-aaaaaa")
    broken = serving(tmp_path, "lm-20260101-000002-bbbbbb")
    broken.status.write_text("[" * 100_000)
    collector.snapshot = poll_slurm(QueueSnapshot(), answers, tmp_path)
    assert samples(url)[("lockgate_runs_unreadable",)] == 1
    broken.status.unlink()
    collector.snapshot = poll_slurm(collector.snapshot, answers, tmp_path)
    assert samples(url)[("lockgate_runs_unreadable",)] == 0
