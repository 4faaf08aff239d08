"""Alerts on targets, hosts, versions, rollouts, training runs and machines.

A page is for faults that clients feel now; everything else is a ticket. Every alert has a section
of the same name in docs/sre.md.
"""

from __future__ import annotations

from serving.observe.rules.rule import Alert, Group
from serving.observe.settings import SCRAPED, AlertThresholds

# Alertmanager holds these back while that model is rolled out: they are its intended effects.
ROLLOUT = {"area": "rollout"}


def target_alerts(limits: AlertThresholds) -> Group:
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
                "Prometheus cannot read the running training jobs from the Slurm exporter",
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
                " or time() - lockgate_slurm_last_success_timestamp_seconds"
                f" > {limits.collector_age_s:g}",
                "ticket",
                "collector {{ $labels.collector }} of the Slurm exporter does not work",
                hold="5m",
            ),
            Alert(
                "LockgateStale",
                "lockgate_collector_success == 0"
                " or time() - lockgate_collector_last_success_timestamp_seconds"
                f" > {limits.collector_age_s:g}",
                "ticket",
                "collector {{ $labels.collector }} of the release exporter does not work",
                hold="5m",
            ),
            Alert(
                "EdgeLogSilent",
                # Edge by edge: the lines of the others are no sign of life of this one.
                "sum by (edge, region) (rate(haproxy_frontend_http_requests_total"
                '{proxy=~"infer(_grpc)?"}[10m]))'
                f" > {limits.edge_requests_per_s:g}"
                " unless on (edge) sum by (edge) (rate(lockgate_edge_log_lines_total[10m])) > 0",
                "ticket",
                "edge {{ $labels.edge }} takes requests and its log does not arrive: the "
                "objectives are blind",
                hold="10m",
            ),
            Alert(
                "EdgeLogMalformed",
                'increase(lockgate_edge_log_lines_total{kind="malformed"}[1h])'
                f" > {limits.malformed_lines}",
                "ticket",
                "lines that are not of the edge's log arrive at its reader",
            ),
        ),
    )


_STANDBY_SERVER = 'label_replace(lockgate_host_standby, "server", "$1", "host", "(.+)")'
"""The hosts on standby, under the name of the edges' label."""


def fleet_alerts(limits: AlertThresholds) -> Group:
    """Alerts on edges, hosts and the versions that they serve."""
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
                # Own hosts alone: those of other regions stand in as backups.
                'max by (region) (haproxy_backend_active_servers{proxy="triton"}) == 0 or '
                # A placed model's own backend.
                'max by (region, proxy) (haproxy_backend_active_servers{proxy=~"triton:.+"}) == 0',
                "page",
                "no host of {{ $labels.region }} takes traffic"
                "{{ with $labels.proxy }} of {{ . }}{{ end }}",
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
                # Not by region: the edges of other regions know the host too.
                "max by (server) "
                '(haproxy_server_status{proxy="triton",state=~"DRAIN|MAINT|DOWN"}) == 1'
                f" unless on (server) {_STANDBY_SERVER}",
                "ticket",
                "{{ $labels.server }} takes no traffic at an edge since 15 minutes",
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
                " lockgate_model_desired_info unless on (host) lockgate_host_standby",
                "ticket",
                "{{ $labels.host }} answers with {{ $labels.model }}/{{ $labels.version }},"
                " which is not in production",
                hold="15m",
                labels=ROLLOUT,
            ),
            Alert(
                "EdgeQueue",
                'haproxy_backend_current_queue{proxy=~"triton(:.+)?"} > 0',
                "ticket",
                "{{ $value }} requests wait at the edge of {{ $labels.region }} for a host",
                hold="5m",
            ),
            Alert(
                "EdgeRetries",
                "sum by (region)"
                ' (rate(haproxy_backend_retry_warnings_total{proxy=~"triton(:.+)?"}[10m]))'
                f" > {limits.edge_retry_ratio:g} * (sum by (region)"
                ' (rate(haproxy_backend_http_responses_total{proxy=~"triton(:.+)?"}[10m])) > 0)',
                "ticket",
                f"more than {100 * limits.edge_retry_ratio:g}% of the connections of"
                " {{ $labels.region }}'s edge are tried again",
                hold="10m",
            ),
        ),
    )


def verification_alerts(limits: AlertThresholds) -> Group:
    """Alerts on what hosts find when they verify and question themselves, and on signatures."""
    verified = "lockgate_host_verification_timestamp_seconds"
    return Group(
        "verification",
        (
            Alert(
                "HostVerificationFailed",
                "lockgate_host_verification_success == 0",
                "ticket",
                "{{ $labels.host }} ({{ $labels.region }}) has files that are not as signed",
            ),
            Alert(
                "HostVerificationOld",
                f"time() - {verified} > {limits.verification_age_s:g}"
                f' or up{{job="host"}} == 1 unless on (host) {verified}',
                "ticket",
                "{{ $labels.host }} ({{ $labels.region }}) has not verified itself for too long",
                hold="15m",
            ),
            Alert(
                "HostAnswersWrong",
                "lockgate_host_golden_ok == 0",
                "ticket",
                "{{ $labels.model }}/{{ $labels.version }} on {{ $labels.host }}"
                " ({{ $labels.region }}) does not give its golden answers",
                hold="1m",
            ),
            Alert(
                "HostAnswersOld",
                f"time() - lockgate_host_golden_timestamp_seconds > {limits.golden_age_s:g}",
                "ticket",
                "{{ $labels.host }} ({{ $labels.region }}) no longer puts golden questions to"
                " what it serves",
                hold="5m",
            ),
            Alert(
                "SignatureExpiresSoon",
                "lockgate_model_signature_expires_timestamp_seconds - time()"
                f" < {limits.signature_left_s:g}",
                "ticket",
                "{{ $labels.model }}/{{ $labels.version }} is served, and no host accepts it anew"
                " from its expiry on",
                hold="15m",
            ),
        ),
    )


def rollout_alerts() -> Group:
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
                "RolloutManualIntervention",
                "sum by (model) (increase(lockgate_rollouts_total"
                '{result=~"manual_intervention|incomplete"}[1h])) > 0',
                "ticket",
                "a rollout of {{ $labels.model }} left hosts or edges for a person to mend",
            ),
        ),
    )


def training_alerts(limits: AlertThresholds) -> Group:
    """Alerts on Slurm nodes and running jobs; `run` is a label of running jobs only."""
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
                f"lockgate_train_checkpoint_age_seconds > {limits.checkpoint_age_s:g}",
                "ticket",
                "run {{ $labels.run }} would lose {{ $value | humanizeDuration }} of work",
                hold="5m",
            ),
        ),
    )


def machine_alerts(limits: AlertThresholds) -> Group:
    """Alerts on memory, disks and CPUs of the machines underneath."""
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
                f"node_filesystem_avail_bytes{usable}"
                f" < {limits.disk_free_ratio:g} * node_filesystem_size_bytes{usable}",
                "ticket",
                f"less than {100 * limits.disk_free_ratio:g}% of"
                " {{ $labels.mountpoint }} on {{ $labels.host }} is free",
                hold="15m",
            ),
            Alert(
                "CpuPressure",
                "rate(node_pressure_cpu_waiting_seconds_total[10m])"
                f" > {limits.cpu_pressure_ratio:g}",
                "ticket",
                "processes on {{ $labels.host }} wait for a CPU for"
                f" {100 * limits.cpu_pressure_ratio:g}% of the time or more",
                hold="30m",
            ),
        ),
    )
