"""The verbs of a host: each takes a checked request and returns the content of its answer."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from serving.host import (
    arrivals,
    leftovers,
    packages,
    repository,
    scaling,
    snapshots,
    state,
    wanted,
)
from serving.host.errors import HostRefusal
from serving.host.home import HostHome
from serving.host.offers import offer_package
from serving.host.peers import read_peer
from serving.host.requests import HostRequest
from serving.host.running import States, lost_process, read_running, resident_bytes
from serving.host.verification import model_faults, model_names, verify_host, with_changes
from serving.triton.server import TritonError

Content = dict[str, Any]
_ANSWER_S = 3.0
_LOG_BYTES = 256 << 10


def carry_out(home: HostHome, request: HostRequest) -> Content:
    """Do what is requested. Raises HostRefusal; a change of a lower fence is none."""
    act = _ACTS[request.verb]
    if not request.alone:
        return act(home, request)
    with ExitStack() as held:
        held.enter_context(state.exclusive(home, request.text))
        if request.changes:
            state.pass_fence(home, request.fence)
        if request.verb in ("restart", "fetch"):
            # A start waits for a verification, which takes its turn after us; a fetch may take an
            # hour, and has an area of its own.
            held.close()
        try:
            return act(home, request)
        except TritonError as error:
            raise HostRefusal(_reason_of(error), str(error)) from error


def _reason_of(error: TritonError) -> str:
    from serving.triton.grpc_client import TritonStuck

    if not isinstance(error, TritonStuck):
        return "triton"
    return "stuck-unload" if error.unloading else "stuck-load"


def _facts(home: HostHome, request: HostRequest) -> Content:
    """Files of one model, or of all, what Triton has loaded of them, and the room on the host.

    Odd names are facts too. A Triton that is down or hangs is one in `control`, and takes nothing
    from the rest.
    """
    (model,) = request.arguments
    names = [model] if model else model_names(home)
    running, golden = read_running(home), state.golden_verdicts(home)
    return {
        "control": running.fault,
        "work": state.work_in_hand(home),
        "memory_bytes": running.memory_bytes,
        "max_instances": home.max_instances,
        "disk_free": _free_bytes(str(home.root)),
        "inodes_free": os.statvfs(home.root).f_favail,
        "shm_free": _free_bytes("/dev/shm"),
        "fence": state.fence(home),
        "verified": with_changes(home, state.last_verification(home), map(str, names)),
        "models": {
            str(name): {
                **_model_facts(home, str(name)),
                "states": _by_text(running.states.get(str(name), {})),
                "instances": running.instances.get(str(name)),
                "golden": golden.get(str(name), {}),
            }
            for name in names
        },
    }


def _memory(home: HostHome, request: HostRequest) -> Content:
    """Read often while a canary is watched: each reading costs the host as little as it can."""
    return {"memory_bytes": resident_bytes(home)}


def _by_text(states: States) -> Content:
    return {str(version): [*pair] for version, pair in sorted(states.items())}


def _model_facts(home: HostHome, model: str) -> Content:
    kept = packages.numbered(home.packages / model)
    installed = packages.numbered(home.repository / model)
    return {
        "packages": {str(v): digest for v, digest in packages.digests(home, model).items()},
        "installed": list(installed.versions),
        "config": repository.persisted_text(home, model),
        "highest": state.highest(home, model),
        "odd": [
            *(f"packages/{model}/{name}" for name in kept.odd),
            *(f"model-repository/{model}/{name}" for name in installed.odd),
        ],
    }


def _free_bytes(path: str) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def _verify(home: HostHome, request: HostRequest) -> Content:
    (model,) = request.arguments
    if model is None:
        return verify_host(home, take_out=False)
    faults = model_faults(home, str(model), take_out=False)
    return {"ok": not faults, "faults": faults}


def _prepare(home: HostHome, request: HostRequest) -> Content:
    return packages.prepare(home, *_of_version(request), request.rollback)


def _missing(home: HostHome, request: HostRequest) -> Content:
    model, version = _of_version(request)
    try:
        return {"files": arrivals.missing(home, model, version)}
    except HostRefusal as refusal:
        if refusal.reason != "busy":  # what is refused leaves nothing, as in `accept`
            packages.clear_staging(home.staged(model, version))
        raise


def _offer(home: HostHome, request: HostRequest) -> Content:
    model, version, peer = request.arguments
    offer_package(home, str(model), version, str(peer))  # type: ignore[arg-type]
    return {}


def _fetch(home: HostHome, request: HostRequest) -> Content:
    model, version, digest, name = request.arguments
    peer = read_peer(home, str(name))
    return arrivals.fetch(
        home, str(model), version, str(digest), peer,  # type: ignore[arg-type]
        request.limit_kib_s, request.rollback,
    )  # fmt: skip


def _accept(home: HostHome, request: HostRequest) -> Content:
    return packages.accept(home, *_of_version(request), request.rollback)


def _probe(home: HostHome, request: HostRequest) -> Content:
    """One golden question now, drawn from the version's own; `seconds` are those of the answer."""
    from serving.host.golden_question import examples_of, put_question

    model, version = _of_version(request)
    examples = examples_of(home, model, version)
    if not examples:
        raise HostRefusal("no-golden", f"{model}/{version} has no golden questions on this host")
    found = put_question(home, model, version, secrets.choice(examples))
    return {"ok": found.ok is True, "detail": found.detail, "seconds": found.seconds}


def _install(home: HostHome, request: HostRequest) -> Content:
    _installed(home, *_of_version(request))
    return {}


def _installed(home: HostHome, model: str, version: int) -> None:
    repository.install(home, model, version)
    snapshots.remember_tree(home, model, version)


def _serve(home: HostHome, request: HostRequest) -> Content:
    """Load exactly these versions, from files verified just now, with a config built here."""
    from serving.triton.grpc_client import TritonClient

    model, versions = _made_ready(home, request)
    if not versions:
        raise HostRefusal("request", "serve takes at least one version; withdraw takes none")
    text = repository.config_text(home, model, versions)
    wanted.remember_serving(home, model, versions)
    with TritonClient(home.grpc_target) as client:
        gone = lost_process(home, model)
        client.serve_versions(model, text, versions, _triton_s(request), gone)
    return {}


def _persist(home: HostHome, request: HostRequest) -> Content:
    model, versions = _made_ready(home, request)
    repository.persist(home, model, versions)
    wanted.remember_persisted(home, model, versions)
    return {}


def _scale(home: HostHome, request: HostRequest) -> Content:
    """Nothing is loaded: the next `serve` gives the number of instances to Triton."""
    model, count = request.arguments
    assert count is None or isinstance(count, int)
    scaling.scale_model(home, str(model), count)
    return {}


def _made_ready(home: HostHome, request: HostRequest) -> tuple[str, tuple[int, ...]]:
    model, versions = request.arguments
    assert isinstance(model, str) and isinstance(versions, tuple)
    if versions:
        state.refuse_older(home, model, max(versions), request.rollback)
    for version in versions:
        _installed(home, model, version)
    return model, versions


def _withdraw(home: HostHome, request: HostRequest) -> Content:
    from serving.triton.grpc_client import TritonClient

    (model,) = request.arguments
    wanted.remember_serving(home, str(model), ())
    with TritonClient(home.grpc_target) as client:
        client.unload(str(model), _triton_s(request), lost_process(home, str(model)))
    return {}


def _triton_s(request: HostRequest) -> float:
    """Triton's part of the request's time: its own sentence is better than that of an alarm."""
    return max(1.0, request.timeout_s - _ANSWER_S)


def _restart(home: HostHome, request: HostRequest) -> Content:
    done = subprocess.run(
        home.restart, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=request.timeout_s,
    )  # fmt: skip
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = lines[-1] if lines else f"status {done.returncode}"
        raise HostRefusal("restart", f"Triton was not restarted: {reason}")
    return {}


def _proven(home: HostHome, request: HostRequest) -> Content:
    """Remember a version that was proven in service.

    Before the first one nothing is known of the older ones that are here: they count as good, and
    are not the first to go.
    """
    model, version = _of_version(request)
    if not state.proven_versions(home, model):
        for older in packages.numbered(home.packages / model).versions:
            if older < version:
                state.remember_proven(home, model, older)
    state.remember_proven(home, model, version)
    return {}


def _prune(home: HostHome, request: HostRequest) -> Content:
    """Remove what is neither named, nor wanted, nor one of the newest `count` that were proven."""
    model, named, count = request.arguments
    assert isinstance(model, str) and isinstance(named, tuple) and isinstance(count, int)
    kept = {*named, *(v for of, v in wanted.wanted_versions(home) if of == model)}
    return packages.prune(home, model, kept, count)


def _gc(home: HostHome, request: HostRequest) -> Content:
    return {"removed": leftovers.remove_rubbish(home), "regions": leftovers.old_regions(home)}


def _logs(home: HostHome, request: HostRequest) -> Content:
    (lines,) = request.arguments
    argv = [word.replace("{lines}", str(lines)) for word in home.logs]
    done = subprocess.run(
        argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=request.timeout_s
    )
    text = done.stdout or done.stderr
    return {"text": text[-_LOG_BYTES:].decode(errors="replace")}


def _revoke(home: HostHome, request: HostRequest) -> Content:
    (digest,) = request.arguments
    state.revoke(home, str(digest))
    return {}


def _of_version(request: HostRequest) -> tuple[str, int]:
    model, version = request.arguments
    assert isinstance(model, str) and isinstance(version, int)
    return model, version


_ACTS: dict[str, Callable[[HostHome, HostRequest], Content]] = {
    "facts": _facts,
    "memory": _memory,
    "verify": _verify,
    "probe": _probe,
    "prepare": _prepare,
    "missing": _missing,
    "offer": _offer,
    "fetch": _fetch,
    "accept": _accept,
    "install": _install,
    "serve": _serve,
    "persist": _persist,
    "scale": _scale,
    "withdraw": _withdraw,
    "restart": _restart,
    "proven": _proven,
    "prune": _prune,
    "gc": _gc,
    "logs": _logs,
    "revoke": _revoke,
}
