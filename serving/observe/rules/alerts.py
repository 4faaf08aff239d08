"""Alerts about what is down, out of traffic, drifting, stalled, or no longer seen.

A page is for what clients feel now; everything else is a ticket. Every alert has a section of the
same name in docs/sre.md.
"""

from __future__ import annotations

from serving.observe.rules.rule import Alert, Group
from serving.observe.settings import SCRAPED

# Alertmanager holds these back while that model is rolled out: they say what the rollout does.
ROLLOUT = {"area": "rollout"}


def targets() -> Group:
    """Alerts on targets that are down or missing."""
    absent = " or ".join(f'absent(up{{job="{job}"}})' for job in SCRAPED if job != "train")
    return Group(
        "targets",
        (
            Alert(
                "TargetDown",
                'up{job!~"triton|haproxy|train"} == 0',
                "ticket",
                "{{ $labels.job }} at {{ $labels.instance }} does not answer Prometheus",
                hold="5m",
            ),
            Alert(
                "TargetMissing",
                absent,
                "ticket",
                "Prometheus has no target of job {{ $labels.job }}: it is no longer configured",
                hold="10m",
            ),
            Alert(
                "ScrapeRefused",
                "increase(prometheus_target_scrapes_exceeded_sample_limit_total[10m]) > 0",
                "ticket",
                "a target shows more series than its sample_limit: its scrapes are dropped whole",
            ),
            Alert(
                "TrainingDiscoveryFailing",
                "increase(prometheus_sd_http_failures_total[10m]) > 0",
                "ticket",
                "Prometheus cannot ask the Slurm exporter which training jobs run",
                hold="10m",
            ),
            Alert(
                "RuleFailing",
                "increase(prometheus_rule_evaluation_failures_total[10m]) > 0",
                "ticket",
                "a rule of group {{ $labels.rule_group }} cannot be evaluated",
            ),
            Alert(
                "AlertsNotDelivered",
                "increase(prometheus_notifications_dropped_total[10m]) > 0"
                " or increase(alertmanager_notifications_failed_total[10m]) > 0",
                "ticket",
                "alerts are raised and do not reach their receiver",
            ),
            Alert(
                "SlurmStale",
                "lockgate_slurm_collector_success == 0"
                " or time() - lockgate_slurm_last_success_timestamp_seconds > 120",
                "ticket",
                "collector {{ $labels.collector }} of the Slurm exporter does not work",
                hold="5m",
            ),
            Alert(
                "LockgateStale",
                "lockgate_collector_success == 0"
                " or time() - lockgate_collector_last_success_timestamp_seconds > 120",
                "ticket",
                "collector {{ $labels.collector }} of the release exporter does not work",
                hold="5m",
            ),
            Alert(
                "EdgeLogSilent",
                'sum(rate(haproxy_frontend_http_requests_total{proxy="infer"}[10m])) > 0.1'
                " unless sum(rate(lockgate_edge_log_lines_total[10m])) > 0",
                "ticket",
                "the edges take requests and their log does not arrive: the objectives are blind",
                hold="10m",
            ),
            Alert(
                "EdgeLogMalformed",
                'increase(lockgate_edge_log_lines_total{kind="malformed"}[1h]) > 10',
                "ticket",
                "lines that are not of the edge's log arrive at its port",
            ),
        ),
    )


def fleet() -> Group:
    """Do hosts and edges serve, and serve what they should?"""
    return Group(
        "fleet",
        (
            Alert(
                "EdgeDown",
                'up{job="haproxy"} == 0',
                "page",
                "the edge of {{ $labels.region }} is down: no client of the region is answered",
                hold="2m",
            ),
            Alert(
                "RegionEmpty",
                'max by (region) (haproxy_server_status{proxy="triton",state="UP"}) == 0',
                "page",
                "no host of {{ $labels.region }} takes traffic",
                hold="1m",
            ),
            Alert(
                "TritonDown",
                'up{job="triton"} == 0',
                "ticket",
                "Triton on {{ $labels.host }} ({{ $labels.region }}) does not answer",
                hold="2m",
            ),
            Alert(
                "HostOut",
                "max by (region, server) "
                '(haproxy_server_status{proxy="triton",state=~"DRAIN|MAINT|DOWN"}) == 1',
                "ticket",
                "{{ $labels.server }} in {{ $labels.region }} takes no traffic since 15 minutes",
                hold="15m",
            ),
            Alert(
                "ModelNotReady",
                'lockgate_model_state{state="ready"} == 0',
                "ticket",
                "{{ $labels.host }} is not ready to serve {{ $labels.model }}",
                hold="10m",
                labels=ROLLOUT,
            ),
            Alert(
                "VersionDrift",
                "lockgate_model_served_info unless on (model, version, digest)"
                " lockgate_model_desired_info",
                "ticket",
                "{{ $labels.host }} answers with {{ $labels.model }}/{{ $labels.version }},"
                " which is not in production",
                hold="15m",
                labels=ROLLOUT,
            ),
            Alert(
                "EdgeQueue",
                'haproxy_backend_current_queue{proxy="triton"} > 0',
                "ticket",
                "{{ $value }} requests wait at the edge of {{ $labels.region }} for a host",
                hold="5m",
            ),
            Alert(
                "EdgeRetries",
                'sum by (region) (rate(haproxy_backend_retry_warnings_total{proxy="triton"}[10m]))'
                " > 0.05 * (sum by (region)"
                ' (rate(haproxy_backend_http_responses_total{proxy="triton"}[10m])) > 0)',
                "ticket",
                "more than 5% of the connections of {{ $labels.region }}'s edge are tried again",
                hold="10m",
            ),
        ),
    )


def releases() -> Group:
    """Alerts on rollouts that went back, stopped or stand still."""
    return Group(
        "releases",
        (
            Alert(
                "ReleaseInProgress",
                "lockgate_rollout_in_progress == 1",
                "none",
                "{{ $labels.model }} is being rolled out",
            ),
            Alert(
                "Rollback",
                "sum by (model, by) (increase(lockgate_rollbacks_total[1h])) > 0",
                "ticket",
                "{{ $labels.model }} went back to an earlier version (by {{ $labels.by }})",
            ),
            Alert(
                "RolloutUnfinished",
                "lockgate_rollout_unfinished == 1 and lockgate_rollout_in_progress == 0",
                "ticket",
                "a rollout of {{ $labels.model }} is half done and nobody is at work on it",
                hold="10m",
            ),
            Alert(
                "RolloutNeedsPerson",
                "sum by (model)"
                ' (increase(lockgate_rollouts_total{result="needs_a_person"}[1h])) > 0',
                "ticket",
                "a host could not be brought back after a failed rollout of {{ $labels.model }}",
            ),
        ),
    )


def training() -> Group:
    """Does the cluster train? `run` is a label of running jobs only."""
    return Group(
        "training",
        (
            Alert(
                "SlurmNodesOut",
                'sum by (state) (lockgate_slurm_nodes{state=~"draining|drained|down"}) > 0',
                "ticket",
                "{{ $value }} Slurm nodes are {{ $labels.state }}",
                hold="15m",
            ),
            Alert(
                "TrainingStalled",
                "changes(lockgate_train_step[10m]) == 0"
                " and lockgate_train_step < lockgate_train_steps",
                "ticket",
                "run {{ $labels.run }} has made no step for 25 minutes",
                hold="15m",
            ),
            Alert(
                "TrainingLossNotFinite",
                "lockgate_train_loss != lockgate_train_loss or abs(lockgate_train_loss) == Inf",
                "ticket",
                "the loss of run {{ $labels.run }} is not a number",
                hold="1m",
            ),
            Alert(
                "CheckpointOld",
                "lockgate_train_checkpoint_age_seconds > 7200",
                "ticket",
                "run {{ $labels.run }} would lose {{ $value | humanizeDuration }} of work",
                hold="5m",
            ),
        ),
    )


def machines() -> Group:
    """Do the machines underneath suffer?"""
    usable = '{fstype!~"tmpfs|squashfs|overlay|ramfs"}'
    return Group(
        "machines",
        (
            Alert(
                "OutOfMemoryKill",
                "increase(node_vmstat_oom_kill[10m]) > 0",
                "ticket",
                "the kernel killed a process on {{ $labels.host }} for want of memory",
            ),
            Alert(
                "DiskFilling",
                f"node_filesystem_avail_bytes{usable} < 0.1 * node_filesystem_size_bytes{usable}",
                "ticket",
                "less than a tenth of {{ $labels.mountpoint }} on {{ $labels.host }} is free",
                hold="15m",
            ),
            Alert(
                "CpuPressure",
                "rate(node_pressure_cpu_waiting_seconds_total[10m]) > 0.2",
                "ticket",
                "processes on {{ $labels.host }} wait for a CPU a fifth of the time",
                hold="30m",
            ),
        ),
    )
