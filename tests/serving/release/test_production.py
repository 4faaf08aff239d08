"""The version that a candidate is compared with: the ledger's, or a refusal where it has none."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from conf import ConfigError
from conf.errors import REFUSED
from serving.fleet.rollout.journal import Journal
from serving.registry import PRODUCTION, Registry
from serving.release import pipeline
from serving.release.production import ProductionUnknown, production_version

from . import tiny

REPO = tiny.REPO


def test_production_is_the_last_version_of_the_ledger_after_a_rollback_too(site: Path) -> None:
    journal = site / "journal"
    assert production_version(journal, "flights") is None
    for version in (1, 2):
        tiny.deploy(site, "flights", version)
    tiny.deploy(site, "webster", 7)
    assert production_version(journal, "flights") == 2
    about = {"model": "flights", "version": 1, "digest": "0" * 64, "previous": 2}
    Journal(journal).enter("rollback", "back", **about)
    assert production_version(journal, "flights") == 1
    assert production_version(journal, "other") is None


def test_a_half_written_last_line_changes_nothing(site: Path) -> None:
    tiny.deploy(site, "flights", 1)
    with (site / "journal/ledger.jsonl").open("a") as file:
        file.write('{"model":"flights","vers')
    assert production_version(site / "journal", "flights") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file needs root")
def test_a_ledger_that_may_not_be_read_is_no_first_release(site: Path) -> None:
    tiny.deploy(site, "flights", 1)
    (site / "journal/ledger.jsonl").chmod(0o600)
    # The pytest folder is root's alone, so the other user sees it as the child of a process that
    # changed its user and not its place.
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from serving.release.production import ProductionUnknown, production_version
        os.chdir(sys.argv[1])
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            print(production_version(Path("journal"), "flights"))
        except ProductionUnknown as error:
            print(f"{error.exit_code} {error}")
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(site)], cwd=REPO, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPO)}, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(f"{REFUSED} the ledger in journal cannot be read")
    assert "chmod a+r journal/*" in done.stdout


def test_only_the_ledger_or_none_can_be_chosen(site: Path) -> None:
    assert tiny.make_settings(site, "r", "production=none").production == "none"
    assert tiny.make_settings(site, "r").production == "ledger"
    with pytest.raises(ConfigError, match="production=3: must be ledger or none"):
        tiny.make_settings(site, "r", "production='3'")


@pytest.mark.triton
@pytest.mark.usefixtures("triton_env")
def test_a_store_with_versions_and_no_production_fails_the_release_and_an_alias_counts_nothing(
    site: Path, dataset: Path, mlflow_db: str
) -> None:
    def released(run: str, *overrides: str) -> tuple[str, int | None, int | None]:
        settings = tiny.make_settings(site, run, *overrides)
        done = pipeline.release_candidate(settings, lambda line: None)
        return done.outcome, done.version, done.production

    tiny.write_candidate(site / "runs", dataset, run="first")
    tiny.write_candidate(site / "runs", dataset, run="second", slope=0.9)
    assert released("first") == ("released", 1, None)
    # A release that was killed, or typed twice, is no second version.
    assert released("first") == ("unchanged", 1, None)
    Registry(mlflow_db).set_alias("flights", PRODUCTION, 1)
    with pytest.raises(ProductionUnknown) as refusal:
        released("second")
    assert refusal.value.exit_code == REFUSED
    assert "fab deploy --model flights --version 1" in str(refusal.value)
    assert "lockgate release run=second production=none" in str(refusal.value)
    tiny.deploy(site, "flights", 1)
    assert released("second") == ("released", 2, 1)
