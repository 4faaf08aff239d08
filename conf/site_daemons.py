"""The daemons of a site: their ports, and the settings of HAProxy, Slurm, Triton and Prometheus."""

from __future__ import annotations

import re
from dataclasses import dataclass

from conf.site_checks import check_at_least_one, check_ports

MAX_BODY_BYTES = 64 << 20
PROMETHEUS_DURATION = re.compile(r"([0-9]+(ms|s|m|h|d|w|y))+")


@dataclass(frozen=True)
class EdgeSettings:
    """Health checks, time-outs and limits of every HAProxy of the site."""

    check_interval_ms: int
    """Time between two liveness checks of a host."""
    fall: int
    """Failed checks in a row after which a host is left out."""
    rise: int
    """Good checks in a row after which a host gets requests again."""
    error_limit: int
    """Failures (5xx, broken answers) in a row after which a host is left out at once."""
    agent_interval_ms: int
    """Time between two readings of a host's verdict on its own answers."""
    backup_regions: bool
    """True: a region with no own host up is served by those of the others."""
    connect_timeout_ms: int
    """Longest TCP connect to a host."""
    queue_timeout_ms: int
    """Longest wait of a request for a free slot; after it the answer is 503."""
    server_timeout_ms: int
    """Longest inference."""
    client_timeout_ms: int
    """Longest silence of a client."""
    max_connections_per_host: int
    """Requests in flight at one host; the rest wait at the edge."""
    max_queue: int
    """Requests that wait at the edge; one more is answered 503 at once."""
    retry_after_s: int
    """`Retry-After` of an answer 503 or 429."""
    max_body_bytes: int
    """Largest body of an inference request, held in memory until it is there and checked."""
    max_json_bytes: int
    """Largest JSON of a request: it is read letter by letter, binary data is not."""
    body_timeout_ms: int
    """Longest time for a whole body to come."""
    max_header_bytes: int
    """Largest head of a request: its address, or all its header lines."""
    header_timeout_ms: int
    """Longest time for a whole head to come."""
    max_connections: int
    """Connections of all clients to one edge; more wait outside."""
    max_connections_per_source: int
    """Connections of one client address; more are closed."""
    max_in_flight_per_source: int
    """Requests in flight of one client address; more are answered 429."""
    max_requests_per_second_per_source: int
    """Requests of one client address in one second; more are answered 429."""

    def __post_init__(self) -> None:
        check_at_least_one({k: v for k, v in vars(self).items() if k != "backup_regions"})
        if self.max_body_bytes > MAX_BODY_BYTES:
            raise ValueError(
                f"max_body_bytes={self.max_body_bytes}: {MAX_BODY_BYTES} at most, because every "
                "body in flight is held in the edge's memory"
            )


@dataclass(frozen=True)
class SitePorts:
    """Ports of the site's daemons, all distinct, 1 to 65535."""

    ssh: int
    """sshd of a serving host."""
    triton_http: int
    """Inference on a serving host."""
    triton_grpc: int
    """Inference by gRPC on a serving host, through the host's door."""
    triton_metrics: int
    """Prometheus metrics of a serving host's Triton."""
    host_exporter: int
    """Prometheus metrics of a serving host's verification of itself."""
    host_agent: int
    """A serving host's verdict on its own answers, which the edge reads."""
    mlflow: int
    """MLflow UI and API."""
    prometheus: int
    """Prometheus UI and API."""
    alertmanager: int
    """Alertmanager UI and API."""
    node_exporter: int
    """Metrics of a machine."""
    slurm_exporter: int
    """Metrics of the queue, the nodes and the running jobs."""
    release_exporter: int
    """Metrics of releases, fleet and journal."""
    slurmctld: int
    """Slurm controller."""
    slurmdbd: int
    """Slurm accounting."""
    slurmd_base: int
    """Node k (k = 1, 2, ...) of the box listens on `slurmd_base + k`."""

    def __post_init__(self) -> None:
        check_ports(vars(self))


@dataclass(frozen=True)
class SiteSigning:
    """Signatures that a serving host wants beside the release's."""

    approvals: int
    """0, or 1: a host takes a version only with an approver's signature too."""
    approvers: tuple[str, ...]
    """Public keys of approvers, each as in a .pub file: TYPE BASE64 [COMMENT]."""

    def __post_init__(self) -> None:
        if self.approvals not in (0, 1):
            raise ValueError(f"approvals={self.approvals}: must be 0 or 1")
        for key in self.approvers:
            if not re.fullmatch(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [^\r\n]*)?", key):
                raise ValueError(f"approvers: {key!r} is no public key as in a .pub file")
        if self.approvals and not self.approvers:
            raise ValueError("approvals=1: approvers names nobody who could approve")


def training_nodes(count: int) -> tuple[str, ...]:
    """The names of a site's `count` Slurm nodes: n1, n2, ..."""
    return tuple(f"n{k}" for k in range(1, count + 1))


@dataclass(frozen=True)
class SiteSlurm:
    """The Slurm cluster: its names and the size of its nodes."""

    cluster: str
    """Cluster name in sacct."""
    partition: str
    """Default partition, whose jobs are never preempted."""
    preemptable_partition: str
    """Partition of the same nodes whose jobs give way to those of `partition`."""
    preemption_grace_s: int
    """Seconds that a preempted job has between the signal to save and its end."""
    nodes: int
    """Number of slurmd that always run, n1, n2, ..., all on one machine."""
    cloud_nodes: int
    """Number of nodes after those that Slurm brings up for a job and lets go when idle; 0: none."""
    suspend_after_s: int
    """Seconds without a job after which a cloud node is let go."""
    resume_timeout_s: int
    """Seconds in which a cloud node has to come up; after them it counts as down."""
    cpus_per_node: int
    """CPUs that a node claims to have."""
    memory_mb_per_node: int
    """Memory that a node claims to have, in MiB; jobs are given shares of it."""
    memory_check_s: int
    """Seconds between two looks at the memory of a job's ranks."""
    gpus_per_node: int
    """Fake GPUs of a node."""
    kill_wait_s: int
    """Seconds between SIGTERM and SIGKILL at cancel and time limit."""
    credential_expire_s: int
    """Seconds that a credential of a job step is valid, and that a requeued job is held."""
    db: str
    """Accounting database."""

    def __post_init__(self) -> None:
        counts = {k: v for k, v in vars(self).items() if isinstance(v, int)}
        if counts.pop("cloud_nodes") < 0:
            raise ValueError(f"cloud_nodes={self.cloud_nodes}: must be at least 0")
        check_at_least_one(counts)
        if self.partition == self.preemptable_partition:
            raise ValueError(f"preemptable_partition={self.partition}: is also slurm.partition")

    @property
    def all_nodes(self) -> int:
        """Number of nodes, those of the cloud with them."""
        return self.nodes + self.cloud_nodes


@dataclass(frozen=True)
class SiteTriton:
    """tritonserver of every serving host."""

    exit_timeout_s: int
    """Seconds that requests in flight have after SIGTERM."""
    verify_interval_s: int
    """Seconds between two verifications of all that a host has."""
    golden_interval_s: int
    """Shortest time between two golden questions of a host to itself."""
    golden_timeout_s: int
    """Time after which a golden question counts as answered wrongly."""
    http_threads: int
    """HTTP workers of one server."""
    max_instances: int
    """Instances that a model may be given on a host, 64 at most."""

    def __post_init__(self) -> None:
        check_at_least_one(vars(self))
        if self.max_instances > 64:
            raise ValueError(f"max_instances={self.max_instances}: must be 64 at most")


@dataclass(frozen=True)
class SitePrometheus:
    """The Prometheus server."""

    retention: str
    """Age at which samples are deleted, a Prometheus duration such as 3d."""

    def __post_init__(self) -> None:
        if not PROMETHEUS_DURATION.fullmatch(self.retention):
            raise ValueError(f"retention={self.retention}: must be a duration such as 3d or 12h")
