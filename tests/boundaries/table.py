"""The boundaries of a site as a table: each guarded thing, who may do it, what guards it.

Everybody else is refused. `page()` is the table as `docs/security.md` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass

IDENTITIES = (
    "train", "release", "sign", "candidate", "deploy", "host", "verify", "triton", "observe",
    "mlflow", "nobody",
)  # fmt: skip
"""The identities of a site by duty; `nobody` is any other user of a machine, a neighbour."""


@dataclass(frozen=True)
class Thing:
    """One guarded thing: `name` as in attempts.py, and the identities that may do it."""

    name: str
    attempt: str
    allowed: frozenset[str]
    threat: str
    guard: str


def thing(name: str, attempt: str, allowed: str, threat: str, guard: str) -> Thing:
    return Thing(name, attempt, frozenset(allowed.split()), threat, guard)


TABLE = (
    thing(
        "release key", "read", "sign",
        "whoever reads it signs whatever they like",
        "mode 0600 of a user that runs the signer only",
    ),
    thing(
        "deploy key", "read", "deploy",
        "whoever reads it can send packages to hosts",
        "mode 0600; on a host it runs a fixed list of verbs",
    ),
    thing(
        "munge key", "read", "",
        "whoever reads it is any user of the cluster",
        "mode 0400 of munge, who trains and serves nothing",
    ),
    thing(
        "signature", "have manifest bytes signed", "release",
        "a signature for what passed no gate",
        "sudo rule for one command line; the signer parses the bytes and keeps a log",
    ),
    thing(
        "candidate's user", "run a program as it", "release",
        "a neighbour reads what a gate's server was given",
        "sudo rule for the release alone",
    ),
    thing(
        "gates", "list the sockets of the gates' servers", "release",
        "code loaded into the server that a candidate is judged on",
        "unix sockets in a folder of release, random names below; no TCP port at all",
    ),
    thing(
        "store", "write", "release",
        "a version that passed no gate",
        "owner; hosts believe the signature, not the store",
    ),
    thing(
        "runs", "write", "train",
        "a candidate changed after its training",
        "owner; the release works on a copy",
    ),
    thing(
        "data", "write", "train",
        "a hold-out that flatters",
        "owner; the dataset's digest is in the lineage",
    ),
    thing(
        "journal", "write", "deploy",
        "another version is called production",
        "owner",
    ),
    thing(
        "staging", "write on a host", "host verify",
        "bytes that nobody verified",
        "nothing in it is trusted: the verifier works on a copy of its own",
    ),
    thing(
        "packages", "write on a host", "verify",
        "a package changed after it was verified",
        "owner; verified again at start, daily and by fab status",
    ),
    thing(
        "repository", "write on a host", "verify",
        "code that nobody signed is loaded",
        "owner; compared with the signed manifest before each load",
    ),
    thing(
        "host's programs", "write on a host", "",
        "another verifier, other signers",
        "root's, installed with the host and never by a deployment",
    ),
    thing(
        "login to a host", "run a command of one's own by SSH", "",
        "a stolen deploy key is a shell on every host",
        "forced command: verbs for verify, rrsync into staging for host",
    ),
    thing(
        "Triton control, gRPC", "connect on a host", "verify triton",
        "code is loaded into a serving host",
        "unix socket in a folder of triton and verify; no TCP port",
    ),
    thing(
        "Triton control, HTTP", "list the repository on a host", "",
        "as above",
        "restricted under a value that no HTTP request can carry",
    ),
    thing(
        "Triton control, edge", "list the repository through an edge", "",
        "as above, by a client",
        "list of allowed paths",
    ),
    thing(
        "Triton control, door", "list the repository through a host's door", "",
        "as above, by a neighbour's gRPC",
        "list of exact paths; behind the door, the unix socket",
    ),
    thing(
        "host's supervisor", "connect", "verify triton",
        "a host is stopped",
        "unix socket, group serving",
    ),
    thing(
        "site's supervisor", "connect", "",
        "every daemon is stopped or replaced",
        "unix socket of root",
    ),
    thing(
        "HAProxy", "connect to the runtime socket", "deploy",
        "a region is taken out of service",
        "unix socket, group edge",
    ),
    thing(
        "edge log", "write to its reader", "",
        "made-up requests page somebody or hide an outage",
        "unix socket of observe, written by haproxy alone",
    ),
    thing(
        "MLflow, runs", "search", "train release deploy observe",
        "a neighbour writes metrics or deletes an alias",
        "a password for each identity, in a file of its own",
    ),
    thing(
        "MLflow, its database", "read", "mlflow",
        "the registry is rewritten below its interface",
        "a user and a folder of its own",
    ),
    thing(
        "Prometheus", "query", "deploy observe",
        "a neighbour reads the site's load, or ends it with queries",
        "a password for each identity",
    ),
    thing(
        "Alertmanager", "post alerts", "observe",
        "made-up alerts wake somebody; a silence hides a real one",
        "a password of its own",
    ),
    thing(
        "MariaDB", "connect", "",
        "accounting is rewritten",
        "unix socket in a folder of mysql and slurm",
    ),
    thing(
        "Slurm", "submit a job", "train",
        "anybody's program on the cluster",
        "the partition takes jobs of the training group only",
    ),
)  # fmt: skip


def page() -> list[str]:
    """The table in Markdown: one line per thing, and its cells identity by identity."""
    lines = [
        "| thing | tried | " + " | ".join(IDENTITIES) + " | threat | guard |",
        "| --- | --- | " + " | ".join("---" for _ in IDENTITIES) + " | --- | --- |",
    ]
    for one in TABLE:
        cells = ["yes" if name in one.allowed else "-" for name in IDENTITIES]
        lines.append(
            f"| {one.name} | {one.attempt} | {' | '.join(cells)} | {one.threat} | {one.guard} |"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(page()))
