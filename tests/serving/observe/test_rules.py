"""The rules at work: promtool plays series to them and says which alerts fire."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from promql_parser import parse

from conf import repo_root
from serving.observe.collectors.edge_log import REASONS, SERVER_REASONS
from serving.observe.prometheus_config import rules_yml
from serving.observe.rules.groups import all_alerts, declared
from serving.observe.rules.rule import of_its_job
from serving.observe.settings import SCRAPED, Settings, read_settings

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is missing")
HEALTHY = [(f'up{{job="{job}",instance="{job}"}}', "1x4500") for job in SCRAPED if job != "train"]


# The target that really shows each metric; `job` is Prometheus' own label of its series.
SHOWN_BY = (
    ("lockgate_train_", "train"), ("lockgate_slurm_", "slurm"), ("lockgate_host_", "host"),
    ("lockgate_", "lockgate"), ("haproxy_", "haproxy"), ("node_", "node"),
    ("prometheus_", "prometheus"), ("alertmanager_", "alertmanager"),
)  # fmt: skip
# Alerts whose series keep it.
KEEPS_JOB = {
    "AlertsNotDelivered": "alertmanager", "EdgeLogMalformed": "lockgate", "EdgeQueue": "haproxy",
    "LockgateStale": "lockgate", "ModelNotReady": "lockgate", "ReleaseInProgress": "lockgate",
    "RolloutUnfinished": "lockgate", "RuleFailing": "prometheus", "ScrapeRefused": "prometheus",
    "SignatureExpiresSoon": "lockgate", "SlurmStale": "slurm", "VersionDrift": "lockgate",
    "TrainingDiscoveryFailing": "prometheus",
}  # fmt: skip


def scraped(series: str) -> str:
    """`series` with the label `job` of the target that shows it, unless it has one."""
    name, _, labels = series.partition("{")
    made = [job for prefix, job in SHOWN_BY if name.startswith(prefix)]
    if not made or re.search(r"\bjob=", labels):
        return series
    rest = labels.removesuffix("}")
    return f'{name}{{job="{made[0]}"{"," if rest else ""}{rest}}}'


@pytest.fixture(scope="module")
def settings() -> Settings:
    return read_settings()


def play(
    folder: Path,
    series: Sequence[tuple[str, str]],
    expect: Sequence[tuple[str, str, Sequence[dict[str, str]]]],
) -> None:
    """Play `series` from 0; at each (time, alert) exactly alerts with the given labels fire.

    `expect` holds (time, alert name, labels of each alert without what the rule itself adds).
    """
    bare = yaml.safe_load(rules_yml())
    rules = {}
    for rule in (rule for group in bare["groups"] for rule in group["rules"]):
        # promtool compares annotations, too; they are prose, and not what is tested here.
        rule.pop("annotations", None)
        if "alert" in rule:
            rules[rule["alert"], rule["labels"].get("long", "")] = rule
    (folder / "bare.yml").write_text(yaml.safe_dump(bare))
    cases = []
    for at, name, fired in expect:
        own = [rules[name, labels.get("long", "")]["labels"] for labels in fired]
        job = {"job": KEEPS_JOB[name]} if name in KEEPS_JOB else {}
        expected = [
            {"exp_labels": {**job, **o, **labels}} for o, labels in zip(own, fired, strict=True)
        ]
        cases.append({"eval_time": at, "alertname": name, "exp_alerts": expected})
    test = {
        "rule_files": ["bare.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": scraped(name), "values": values} for name, values in series
                ],
                "alert_rule_test": cases,
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


US_EAST = {"region": "us-east", "model": "flights"}
REQUESTS = 'lockgate_requests_total{region="us-east",model="%s"}'
FAILURES = 'lockgate_request_failures_total{region="us-east",model="%s",reason="%s"}'
COUNT = 'lockgate_request_duration_seconds_count{region="us-east",model="%s"}'
FAST = 'lockgate_request_duration_seconds_bucket{region="us-east",model="%s",le="0.3"}'


@needs_promtool
def test_a_fast_burn_pages_and_a_healthy_model_does_not(tmp_path: Path) -> None:
    series = [
        (REQUESTS % "flights", "0+1000x120"),
        (FAILURES % ("flights", "no_host"), "0+20x120"),  # 2%: above 14.4 x 0.1%
        (REQUESTS % "lm", "0+1000x120"),
        (FAILURES % ("lm", "timeout"), "0+1x120"),  # 0.1%: the budget, and no more
        (REQUESTS % "clients", "0+1000x120"),
        (FAILURES % ("clients", "rejected"), "0+900x120"),  # their own fault
        (REQUESTS % "other", "0+1000x120"),
        (FAILURES % ("other", "no_host"), "0+900x120"),  # not a model of ours
    ]
    fired = [
        {**US_EAST, "long": "1h", "short": "5m"},
        {**US_EAST, "long": "6h", "short": "30m"},
        {**US_EAST, "long": "1d", "short": "2h"},
        {**US_EAST, "long": "3d", "short": "6h"},
    ]
    play(tmp_path, series, [("65m", "AvailabilityBurn", fired)])


@needs_promtool
@pytest.mark.parametrize("reason", REASONS)
def test_only_failures_of_the_service_burn_the_budget(reason: str, tmp_path: Path) -> None:
    """Malformed requests, floods and slow bodies are `denied` or `rejected`: nobody is called."""
    series = [
        (REQUESTS % "flights", "0+1000x120"),
        (FAILURES % ("flights", reason), "0+900x120"),
    ]
    page = {**US_EAST, "long": "1h", "short": "5m"}
    fired = [page, *_slower()] if reason in SERVER_REASONS else []
    play(tmp_path, series, [("65m", "AvailabilityBurn", fired)])


@needs_promtool
def test_a_burn_that_is_over_no_longer_pages(tmp_path: Path) -> None:
    series = [
        (REQUESTS % "flights", "0+1000x180"),
        (FAILURES % ("flights", "no_host"), "0+100x30 3000x150"),
    ]
    pages = [{**US_EAST, "long": "1h", "short": "5m"}]
    play(
        tmp_path,
        series,
        [
            ("20m", "AvailabilityBurn", [*pages, *_slower()]),
            # The short window is clean and keep_firing_for is over; the long ones remember.
            ("45m", "AvailabilityBurn", _slower()),
        ],
    )


def _slower() -> list[dict[str, str]]:
    windows = [("6h", "30m"), ("1d", "2h"), ("3d", "6h")]
    return [{**US_EAST, "long": long, "short": short} for long, short in windows]


@needs_promtool
def test_one_failure_of_two_calls_nobody(tmp_path: Path) -> None:
    series = [
        (REQUESTS % "flights", "0+0x60 2+0x60"),
        (FAILURES % ("flights", "no_host"), "0+0x60 1+0x60"),
    ]
    play(tmp_path, series, [("62m", "AvailabilityBurn", []), ("65m", "AvailabilityBurn", [])])


@needs_promtool
def test_no_traffic_is_no_data(tmp_path: Path) -> None:
    series = [
        (REQUESTS % "flights", "0+0x120"),
        (FAILURES % ("flights", "no_host"), "0+0x120"),
        (COUNT % "flights", "0+0x120"),
        (FAST % "flights", "0+0x120"),
    ]
    play(tmp_path, series, [("100m", "AvailabilityBurn", []), ("100m", "LatencyBurn", [])])


@needs_promtool
def test_slow_answers_burn_the_latency_budget(tmp_path: Path) -> None:
    series = [
        (COUNT % "flights", "0+1000x120"),
        (FAST % "flights", "0+800x120"),  # 20% slower than 0.3 s: above 14.4 x 1%
        (COUNT % "lm", "0+1000x120"),
        (FAST % "lm", "0+995x120"),
    ]
    page = {**US_EAST, "long": "1h", "short": "5m"}
    play(tmp_path, series, [("65m", "LatencyBurn", [page, *_slower()])])


@needs_promtool
def test_targets_that_are_down_or_gone(tmp_path: Path) -> None:
    rest = [one for one in HEALTHY if '"slurm"' not in one[0] and '"node"' not in one[0]]
    series = [*rest, ('up{job="node",instance="n"}', "0x60"), ('up{job="train"}', "0x60")]
    play(
        tmp_path,
        series,
        [
            ("4m", "TargetDown", []),
            ("6m", "TargetDown", [{"job": "node", "instance": "n"}]),
            ("9m", "TargetMissing", []),
            ("11m", "TargetMissing", [{"job": "slurm"}]),
        ],
    )
    play(tmp_path, HEALTHY, [("30m", "TargetDown", []), ("30m", "TargetMissing", [])])


@needs_promtool
def test_an_edge_a_region_and_a_host(tmp_path: Path) -> None:
    active = 'haproxy_backend_active_servers{region="%s",proxy="triton"}'
    status = 'haproxy_server_status{region="%s",proxy="triton",server="%s",state="%s"}'
    series = [
        ('up{job="haproxy",region="us-west",instance="e"}', "0x60"),
        ('up{job="triton",region="us-east",host="use1-a",instance="t"}', "0x60"),
        (active % "us-east", "0x60"),
        (active % "us-west", "1x60"),
        (
            status % ("us-east", "usw2-b", "UP"),
            "1x60",
        ),  # stands in, and the page comes all the same
        ('haproxy_backend_active_servers{region="us-west",proxy="triton:big"}', "1x3 0x60"),
        (status % ("us-west", "usw2-a", "DRAIN"), "1x60"),
        (status % ("us-east", "usw2-a", "DRAIN"), "1x60"),
        (status % ("us-east", "use1-c", "DRAIN"), "1x60"),
        ('lockgate_host_standby{host="use1-c",region="us-east"}', "1x60"),
    ]
    play(
        tmp_path,
        series,
        [
            ("1m", "EdgeDown", []),
            ("3m", "EdgeDown", [{"job": "haproxy", "region": "us-west", "instance": "e"}]),
            (
                "3m",
                "TritonDown",
                [{"job": "triton", "region": "us-east", "host": "use1-a", "instance": "t"}],
            ),
            ("2m", "RegionEmpty", [{"region": "us-east"}]),
            (
                "8m",
                "RegionEmpty",
                [{"region": "us-east"}, {"region": "us-west", "proxy": "triton:big"}],
            ),
            ("14m", "HostOut", []),
            ("16m", "HostOut", [{"server": "usw2-a"}]),
        ],
    )


@needs_promtool
def test_a_host_that_answers_with_another_version(tmp_path: Path) -> None:
    served = 'lockgate_model_served_info{model="flights",version="%s",digest="%s",host="%s"}'
    series = [
        ('lockgate_model_desired_info{model="flights",version="2",digest="d2"}', "1x60"),
        (served % ("2", "d2", "use1-a"), "1x60"),
        (served % ("1", "d1", "use1-b"), "1x60"),
        (served % ("2", "other", "usw2-a"), "1x60"),
        (served % ("1", "d1", "usw2-c"), "1x60"),
        ('lockgate_host_standby{host="usw2-c",region="us-west"}', "1x60"),
        ('lockgate_model_state{model="flights",host="usw2-b",state="ready"}', "0x60"),
        ('lockgate_model_state{model="flights",host="use1-a",state="ready"}', "1x60"),
    ]
    drifting = [
        {"model": "flights", "version": "1", "digest": "d1", "host": "use1-b"},
        {"model": "flights", "version": "2", "digest": "other", "host": "usw2-a"},
    ]
    play(
        tmp_path,
        series,
        [
            ("14m", "VersionDrift", []),
            ("16m", "VersionDrift", drifting),
            ("11m", "ModelNotReady", [{"model": "flights", "host": "usw2-b", "state": "ready"}]),
        ],
    )


@needs_promtool
def test_hosts_that_find_faults_or_no_longer_look(tmp_path: Path) -> None:
    at = 'lockgate_host_verification_timestamp_seconds{job="host",host="%s",region="us-east"}'
    success = 'lockgate_host_verification_success{job="host",host="%s",region="us-east"}'
    up = 'up{job="host",host="%s",region="us-east"}'
    expires = 'lockgate_model_signature_expires_timestamp_seconds{model="flights",version="%s"}'
    day = 24 * 60
    series = [
        *((up % host, f"1x{2 * day}") for host in ("fine", "old", "never", "faulty")),
        (up % "down", f"0x{2 * day}"),  # TargetDown, and nothing twice
        (at % "fine", f"0x{day} {day * 60}x{day}"),  # verified itself once a day
        (success % "fine", f"1x{2 * day}"),
        (at % "old", f"0x{2 * day}"),
        (success % "old", f"1x{2 * day}"),
        (at % "faulty", f"0+60x{2 * day}"),
        (success % "faulty", f"1x10 0x{2 * day}"),
        (expires % "2", f"{15 * day * 60}x{2 * day}"),  # 15 days: within two weeks after one day
        (expires % "3", f"{365 * day * 60}x{2 * day}"),
    ]

    def one(host: str) -> dict[str, str]:
        return {"job": "host", "host": host, "region": "us-east"}

    soon = [{"model": "flights", "version": "2"}]
    play(
        tmp_path,
        series,
        [
            ("9m", "HostVerificationFailed", []),
            ("12m", "HostVerificationFailed", [one("faulty")]),
            ("14m", "HostVerificationOld", []),
            ("16m", "HostVerificationOld", [one("never")]),
            (f"{26 * 60}m", "HostVerificationOld", [one("never")]),
            (f"{26 * 60 + 20}m", "HostVerificationOld", [one("old"), one("never")]),
            (f"{day - 1}m", "SignatureExpiresSoon", []),
            (f"{day + 20}m", "SignatureExpiresSoon", soon),
        ],
    )


@needs_promtool
def test_hosts_that_answer_wrongly_or_are_asked_no_more(tmp_path: Path) -> None:
    labels = 'job="host",host="%s",region="us-east",model="flights",version="%s"'
    ok, at = f"lockgate_host_golden_ok{{{labels}}}", "lockgate_host_golden_timestamp_seconds"
    series = [
        (ok % ("fine", "2"), "1x60"),
        (ok % ("moment", "2"), "1x10 0 1x49"),  # one scrape that failed
        (ok % ("dead", "2"), "1x10 0x50"),
        (ok % ("dead", "1"), "1x60"),
        (f"{at}{{{labels}}}" % ("fine", "2"), "0+60x60"),
        (f"{at}{{{labels}}}" % ("still", "2"), "0+60x10 600x50"),
    ]

    def one(host: str) -> dict[str, str]:
        return {
            "job": "host", "host": host, "region": "us-east", "model": "flights", "version": "2",
        }  # fmt: skip

    play(
        tmp_path,
        series,
        [
            ("9m", "HostAnswersWrong", []),
            ("13m", "HostAnswersWrong", [one("dead")]),
            ("24m", "HostAnswersOld", []),
            ("32m", "HostAnswersOld", [one("still")]),
        ],
    )


@needs_promtool
def test_rollouts_that_went_back_or_stopped(tmp_path: Path) -> None:
    flights = {"model": "flights"}
    series = [
        ('lockgate_rollbacks_total{model="flights",by="rollout"}', "0x10 1x120"),
        ('lockgate_rollbacks_total{model="flights",by="person"}', "0x130"),
        ('lockgate_rollouts_total{model="flights",result="manual_intervention"}', "0x10 1x120"),
        ('lockgate_rollouts_total{model="flights",result="done"}', "0+1x130"),
        ('lockgate_rollout_unfinished{model="flights"}', "1x60"),
        ('lockgate_rollout_in_progress{model="flights"}', "1x20 0x40"),
    ]
    play(
        tmp_path,
        series,
        [
            ("9m", "Rollback", []),
            ("13m", "Rollback", [{**flights, "by": "rollout"}]),
            ("100m", "Rollback", []),
            ("13m", "RolloutManualIntervention", [flights]),
            ("13m", "ReleaseInProgress", [flights]),
            ("20m", "RolloutUnfinished", []),
            ("32m", "RolloutUnfinished", [flights]),
        ],
    )


@needs_promtool
def test_collectors_that_fail_or_stand_still(tmp_path: Path) -> None:
    last = 'lockgate_slurm_last_success_timestamp_seconds{collector="%s"}'
    series = [
        ('lockgate_slurm_collector_success{collector="jobs"}', "0x60"),
        ('lockgate_slurm_collector_success{collector="nodes"}', "1x60"),
        (last % "nodes", "0x60"),  # says it works, and its last poll is long ago
        ('lockgate_slurm_collector_success{collector="targets"}', "1x60"),
        (last % "targets", "0+60x60"),
        ('lockgate_collector_success{collector="fleet"}', "0x60"),
    ]
    collectors = [{"collector": "jobs"}, {"collector": "nodes"}]
    play(
        tmp_path,
        series,
        [
            ("4m", "SlurmStale", []),
            ("9m", "SlurmStale", collectors),
            ("9m", "LockgateStale", [{"collector": "fleet"}]),
        ],
    )


@needs_promtool
def test_the_edge_log_is_silent_or_strange(tmp_path: Path) -> None:
    def requests(edge: str, values: str, proxy: str = "infer") -> tuple[str, str]:
        labels = f'{{edge="{edge}",region="us",proxy="{proxy}"}}'
        return f"haproxy_frontend_http_requests_total{labels}", values

    def lines(edge: str, values: str, kind: str = "infer") -> tuple[str, str]:
        return f'lockgate_edge_log_lines_total{{kind="{kind}",edge="{edge}"}}', values

    def silent(*edges: str) -> list[dict[str, str]]:
        return [{"edge": edge, "region": "us"} for edge in edges]

    loud = [requests("a", "0+60x60"), lines("a", "0+60x60")]
    one = [*loud, requests("b", "0+60x60"), lines("b", "0x60"), requests("c", "0+60x60")]
    by_grpc = [requests("d", "0x60"), requests("d", "0+60x60", "infer_grpc"), lines("d", "0x60")]
    idle = [requests("e", "5x60"), lines("e", "0x60")]
    malformed = [lines("other", "0+1x60", "malformed")]
    play(
        tmp_path,
        [*one, *by_grpc, *idle, *malformed],
        [
            ("25m", "EdgeLogSilent", silent("b", "c", "d")),
            ("25m", "EdgeLogMalformed", [{"kind": "malformed", "edge": "other"}]),
        ],
    )
    quiet = [*loud, *idle, lines("other", "0x60", "malformed")]
    play(tmp_path, quiet, [("25m", "EdgeLogSilent", []), ("25m", "EdgeLogMalformed", [])])


@needs_promtool
def test_a_run_that_stands_still_and_one_that_does_not(tmp_path: Path) -> None:
    def run(name: str, step: str, loss: str = "1x60", age: str = "60x60") -> list[tuple[str, str]]:
        labels = f'{{job="train",run="{name}",task="lm"}}'
        return [
            (f"lockgate_train_step{labels}", step),
            (f"lockgate_train_steps{labels}", "1000x60"),
            (f"lockgate_train_loss{labels}", loss),
            (f"lockgate_train_checkpoint_age_seconds{labels}", age),
        ]

    series = [
        *run("good", "0+5x60"),
        *run("stuck", "7x60"),
        *run("ended", "1000x60"),
        *run("broken", "0+5x60", loss="1" + 59 * " NaN"),
        *run("unsaved", "0+5x60", age="9000x60"),
        ('lockgate_slurm_nodes{state="drained"}', "1x60"),
        ('lockgate_slurm_nodes{state="down"}', "0x60"),
    ]

    def one(name: str) -> dict[str, str]:
        return {"job": "train", "run": name, "task": "lm"}

    play(
        tmp_path,
        series,
        [
            ("10m", "TrainingStalled", []),
            ("26m", "TrainingStalled", [one("stuck")]),
            ("5m", "TrainingLossNotFinite", [one("broken")]),
            ("6m", "CheckpointOld", [one("unsaved")]),
            ("16m", "SlurmNodesOut", [{"state": "drained"}]),
        ],
    )


@needs_promtool
def test_machines_and_monitoring_itself(tmp_path: Path) -> None:
    node = {"job": "node", "host": "control"}
    label = 'job="node",host="control"'
    series = [
        (f"node_vmstat_oom_kill{{{label}}}", "0x5 1x60"),
        (f'node_filesystem_avail_bytes{{{label},mountpoint="/",fstype="ext4"}}', "9x60"),
        (f'node_filesystem_size_bytes{{{label},mountpoint="/",fstype="ext4"}}', "100x60"),
        (f'node_filesystem_avail_bytes{{{label},mountpoint="/run",fstype="tmpfs"}}', "0x60"),
        (f'node_filesystem_size_bytes{{{label},mountpoint="/run",fstype="tmpfs"}}', "100x60"),
        (f"node_pressure_cpu_waiting_seconds_total{{{label}}}", "0+30x60"),
        ("prometheus_target_scrapes_exceeded_sample_limit_total{}", "0x5 1x60"),
        ("prometheus_sd_http_failures_total{}", "0+1x60"),
        ('prometheus_rule_evaluation_failures_total{rule_group="slo"}', "0x5 1x60"),
        ("prometheus_notifications_dropped_total{}", "0x60"),
        ('alertmanager_notifications_failed_total{integration="webhook"}', "0x5 1x60"),
        ('haproxy_backend_current_queue{region="us-east",proxy="triton"}', "3x60"),
        ('haproxy_backend_current_queue{region="us-east",proxy="triton:big"}', "3x60"),
        ('haproxy_backend_current_queue{region="us-east",proxy="triton_last"}', "3x60"),
        ('haproxy_backend_retry_warnings_total{region="us-east",proxy="triton"}', "0+10x60"),
        ('haproxy_backend_http_responses_total{region="us-east",proxy="triton"}', "0+100x60"),
    ]  # fmt: skip
    play(
        tmp_path,
        series,
        [
            ("10m", "OutOfMemoryKill", [node]),
            ("30m", "OutOfMemoryKill", []),
            ("20m", "DiskFilling", [{**node, "mountpoint": "/", "fstype": "ext4"}]),
            ("45m", "CpuPressure", [node]),
            ("10m", "ScrapeRefused", [{}]),
            ("30m", "TrainingDiscoveryFailing", [{}]),
            ("10m", "RuleFailing", [{"rule_group": "slo"}]),
            ("10m", "AlertsNotDelivered", [{"integration": "webhook"}]),
            (
                "10m",
                "EdgeQueue",
                [{"region": "us-east", "proxy": name} for name in ("triton", "triton:big")],
            ),
            ("25m", "EdgeRetries", [{"region": "us-east"}]),
        ],
    )


def test_every_alert_was_played(settings: Settings) -> None:
    played = Path(__file__).read_text(encoding="utf-8")
    missing = {alert.name for alert in all_alerts(settings) if f'"{alert.name}"' not in played}
    assert not missing


def test_every_alert_has_its_section_and_every_section_its_alert(settings: Settings) -> None:
    guide = (repo_root() / "docs/sre.md").read_text(encoding="utf-8")
    part = guide.split("## Alerts", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^### (\w+)$", part, re.M)) == {
        alert.name for alert in all_alerts(settings)
    }


def test_pages_are_for_what_clients_feel(settings: Settings) -> None:
    pages = {alert.name for alert in all_alerts(settings) if alert.severity == "page"}
    assert pages == {"AvailabilityBurn", "LatencyBurn", "EdgeDown", "RegionEmpty"}


def test_no_rule_of_the_fleet_names_a_run(settings: Settings) -> None:
    for group in declared(settings):
        for rule in group.rules:
            parse(rule.expr)
            assert group.name == "training" or not re.search(r"\b(run|job_id)\b", rule.expr)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("rate(lockgate_requests_total[5m])", 'rate(lockgate_requests_total{job="lockgate"}[5m])'),
        ('node_x{fstype="ext4"} < 1', 'node_x{job="node",fstype="ext4"} < 1'),
        ("lockgate_train_step", 'lockgate_train_step{job="train"}'),
        ('up{job="node"} == region_model:x:rate5m', 'up{job="node"} == region_model:x:rate5m'),
    ],
)
def test_a_metric_is_taken_from_its_own_job(expr: str, expected: str) -> None:
    assert of_its_job(expr) == expected


def test_no_selector_of_a_rule_is_without_a_job() -> None:
    rules = [rule for group in yaml.safe_load(rules_yml())["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    selectors = [
        found.groups()
        for rule in rules
        for found in re.finditer(r"\b([a-z]\w*:?[\w:]*_\w+|up)\s*(\{[^}]*\})?", rule["expr"])
        if found[1] not in recorded and not re.search(r"\b(by|on)\b", found[1])
    ]
    shown = [(name, labels) for name, labels in selectors if made_by_a_target(name)]
    assert len(shown) > 40
    assert [name for name, labels in shown if "job" not in (labels or "")] == []


def made_by_a_target(name: str) -> bool:
    return name == "up" or any(name.startswith(prefix) for prefix, _ in SHOWN_BY)


@needs_promtool
def test_a_model_that_shows_metrics_of_the_edge_pages_nobody(tmp_path: Path) -> None:
    def forged(series: str) -> str:
        return series.replace("{", '{job="triton",')

    bad, all_ = (forged(one % name) for one, name in
                 ((FAILURES, ("flights", "model_error")), (REQUESTS, "flights")))  # fmt: skip
    counted = [(bad, "0+60x240"), (all_, "0+60x240")]
    play(tmp_path, [*HEALTHY, *counted], [("2h", "AvailabilityBurn", [])])
