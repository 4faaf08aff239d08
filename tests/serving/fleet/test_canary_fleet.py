"""The judged canary on a real Triton behind a real edge: what must be stopped is, and what is good
passes. The tests share one bed; each loads a version beside the one in production and unloads it.
"""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from conf.errors import FAILED
from serving.fleet.canary.analysis import judge_canary
from serving.fleet.canary.evidence import CanaryEvidence
from serving.fleet.canary.gathering import gather
from serving.fleet.canary.limits import CanaryLimits
from serving.fleet.canary.verdict import Verdict
from serving.fleet.cli import command
from serving.fleet.routing import Routing
from serving.fleet.shipment import read_shipment
from serving.fleet.ssh.ssh_driver import SshDriver
from tests.serving.fleet import bed as beds

pytestmark = beds.MARKS

LIMITS = CanaryLimits(
    min_probes=80, probe_share=1.0, wait_s=120.0, min_requests=20, max_growth_mib=64.0
)


@pytest.fixture(scope="module")
def bed():
    made = beds.bed_up(1)
    try:
        made.publish(1, 2.0)
        assert deploy(made).outcome.kind == "done"
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def driver(bed):
    on = command.controls(bed.config)
    # Above every lease: no deployment comes after this.
    with SshDriver(on.fleet, "toy", on.store, on.config, fence=1000) as made:
        yield made


def deploy(bed, **rollout):
    on = command.controls(OmegaConf.merge(bed.config, {"rollout": rollout}))
    return command.deploy(on, "toy", None, lambda *_: None)


def next_version(bed) -> int:
    return max(int(path.name) for path in (bed.store / "toy").iterdir()) + 1


def load(driver: SshDriver, *versions: int) -> None:
    """Have the host serve exactly `versions`, of which the last may be new to it."""
    (host,), shipment = driver.fleet.hosts, read_shipment(driver.store, "toy", versions[-1])
    driver.stage(host, shipment, rollback=False)
    driver.install(host, shipment)
    driver.serve(host, versions, rollback=False)


def watch(
    bed, driver: SshDriver, seconds: float = 1.0, **model: object
) -> tuple[Verdict, CanaryEvidence]:
    """Publish a version, load it beside version 1, judge it, unload it."""
    version = next_version(bed)
    bed.publish(version, float(model.pop("factor", 2.0)), **model)
    load(driver, 1, version)
    bed.edge().route("toy", Routing(1, version, 50))
    try:
        found = gather(driver, driver.fleet.hosts, version, 1, seconds, LIMITS)
    finally:
        bed.edge().route("toy", Routing(1))
    if "crash_after" not in model:  # whose unload hangs: see test_emergencies.py
        driver.serve(driver.fleet.hosts[0], (1,), rollback=True)
    return judge_canary(found, LIMITS), found


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"infer_s": 0.5}, "half of the canary's golden answers took over 5"),
        # Those after the 16 questions of the check, which it stands.
        ({"wrong_after": 60}, "golden questions wrong"),
    ],
    ids=["half a second slower", "wrong after sixty requests"],
)
def test_a_deployment_of_a_bad_version_is_undone_without_any_client(bed, model, sentence):
    """Row 9 of the issue: both were rolled out with exit code 0."""
    bed.publish(next_version(bed), 2.0, **model)
    analysis = {"min_probes": 80, "probe_share": 1.0, "wait_s": 120}
    report = deploy(bed, steps=[10, 100], warm_up=0, analysis=analysis)
    assert (report.outcome.kind, report.exit_code) == ("rolled-back", FAILED), report
    assert sentence in report.outcome.reason
    assert bed.edge().routing("toy") == Routing(1)
    assert bed.ask(3.0) == 6.0


@pytest.mark.full
def test_a_good_version_passes_under_traffic_of_clients(bed, driver):
    with beds.Load(bed, (2.0, 3.0)) as clients:
        verdict, found = watch(bed, driver, seconds=4.0, factor=3.0)
    assert verdict.outcome == "pass", verdict
    assert clients.failures == [] and clients.seen == {2.0, 3.0}
    assert found.canary.requests.requests > 20 and found.baseline.requests.requests > 20
    assert len(found.memory["a"]) > 6, "the host says how much memory its Triton has"
    assert len(found.canary.samples) >= LIMITS.min_probes


@pytest.mark.full
@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"infer_s": 0.5}, "half of the canary's golden answers took over 5"),
        ({"wrong_after": 60}, "golden questions wrong"),
        ({"leak_bytes": 2 << 20}, "memory of Triton grew by"),
        ({"crash_after": 10}, "golden questions, the baseline 0 of"),
    ],
    ids=["half a second slower", "wrong after sixty requests", "leaks", "crashes on the tenth"],
)
def test_a_bad_version_is_stopped_without_any_client(bed, driver, model, sentence):
    try:
        verdict, _ = watch(bed, driver, **model)
    finally:
        assert bed.ask(3.0, version=1) == 6.0, "the version in production answers on"
    assert verdict.outcome == "fail", verdict
    assert any(sentence in reason for reason in verdict.reasons), verdict.reasons
