"""Models that have hosts of their own, at one edge: a backend for each, named `BACKEND:MODEL`.

Its servers track those of their names in the backend of all hosts, in health and in the state that
a rollout set (drain, maint). So a host is checked once, and taken out once for all its models. What
that backend observes of its own requests does not count here: a host that answers a placed model
with failures is left out by the verdict of its agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from conf.site_daemons import EdgeSettings
from conf.site_placement import Placement, hosts_alone, hosts_of
from serving.edge_host.names import BACKEND, LAST

Targets = Mapping[str, str]
"""`address:port` by host."""
QUEUE_IS_FULL = "the queue is full"


@dataclass(frozen=True)
class ModelHosts:
    """The hosts of one model: of the edge's region, and of others, which stand in for them."""

    model: str
    own: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class EdgePlacement:
    """The placed models, and the hosts that get no request for any other model."""

    models: tuple[ModelHosts, ...] = ()
    reserved: frozenset[str] = frozenset()

    def weight(self, host: str) -> str:
        """The end of a server's line in a backend of all hosts.

        There the host is checked, and has its state; with weight 0 it is sent nothing.
        """
        return " weight 0" if host in self.reserved else ""


def edge_placement(
    placement: Placement, own: Iterable[str], others: Iterable[str]
) -> EdgePlacement:
    """`placement` for an edge with the hosts `own` of its region and `others` behind them."""
    here, elsewhere = list(own), list(others)
    reserved = hosts_alone(placement)
    if reserved.issuperset(here):
        # Then nothing but a request for the health of the region goes to the backend of all hosts.
        reserved -= set(here)
    models = tuple(
        ModelHosts(model, hosts_of(placement, model, here), hosts_of(placement, model, elsewhere))
        for model in placement
    )
    return EdgePlacement(models, reserved)


def model_backend(backend: str, model: str) -> str:
    """The name of the backend of a placed model. No model's name has a colon."""
    return f"{backend}:{model}"


def is_model(models: Sequence[ModelHosts], model: str = "var(txn.model)") -> str:
    """The condition of a request for one of `models`; `model` is the sample with its name."""
    return f"{{ {model} -m str {' '.join(one.model for one in models)} }}"


def queue_rules(
    placed: EdgePlacement, backend: str, most: int, refuse: Callable[[int, str, str], str]
) -> list[str]:
    """Rules that answer 503 where `most` requests wait in the backend that the request goes to."""
    others = f" !{is_model(placed.models)}" if placed.models else ""
    return [
        refuse(503, QUEUE_IS_FULL, f"{{ queue({backend}) ge {most} }}{others}"),
        *(
            refuse(
                503,
                QUEUE_IS_FULL,
                f"{is_model([one])} {{ queue({model_backend(backend, one.model)}) ge {most} }}",
            )
            for one in placed.models
        ),
    ]


def backend_rules(placed: EdgePlacement, backend: str, last: str) -> list[str]:
    """Rules that choose the backend: the model's, or the one of all hosts; `last` where nobody is
    up."""
    rules = []
    for one in placed.models:
        own = model_backend(backend, one.model)
        rules += [
            f"  use_backend {model_backend(last, one.model)} "
            f"if {is_model([one])} {{ nbsrv({own}) lt 1 }}",
            f"  use_backend {own} if {is_model([one])}",
        ]
    return [
        *rules,
        f"  use_backend {last} if {{ nbsrv({backend}) lt 1 }}",
        f"  default_backend {backend}",
    ]


def model_backends(
    placed: EdgePlacement, targets: Targets, settings: EdgeSettings, sending: Sequence[str]
) -> list[str]:
    """The HTTP backends of the placed models; `sending` are the lines on balance and retries.

    `max_connections_per_host` counts in each: a host of several may get as many times more.
    """
    lines: list[str] = []
    for one in placed.models:
        lines += [
            f"backend {model_backend(BACKEND, one.model)}",
            *sending,
            "  option allbackups",
            *tracking(one.own, targets, settings.max_connections_per_host, BACKEND),
            *(
                f"{line} backup"
                for line in tracking(
                    one.others, targets, settings.max_connections_per_host, BACKEND
                )
            ),
            f"backend {model_backend(LAST, one.model)}",
            *sending,
            *tracking(one.own, targets, settings.max_connections_per_host, LAST),
        ]
    return lines


def tracking(
    hosts: Iterable[str], targets: Targets, connections: int, followed: str, form: str = ""
) -> list[str]:
    """Lines of servers that follow those of their names in the backend `followed`."""
    return [
        f"  server {host} {targets[host]}{form} maxconn {connections} track {followed}/{host}"
        for host in hosts
    ]
