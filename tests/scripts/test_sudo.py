"""sudo's rules: to the letter, and as visudo reads them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conf import compose
from conf.site_schema import Site, site_config
from scripts.box import sudo
from scripts.box.program import Refusal
from serving.release.signing import signer_command


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return site_config(compose("site", [f"site.root='{tmp_path}/a=b,c'"]))


def test_the_release_may_be_the_candidate_and_run_one_command_as_the_signer(site: Site) -> None:
    lines = sudo.rules(site).splitlines()
    signer = lines[-1].removeprefix("lg-release ALL=(lg-sign) NOPASSWD: ")
    assert lines[-2] == "lg-release ALL=(lg-candidate) NOPASSWD: ALL"
    wanted = signer_command(site.paths.release_key, site.paths.signed)
    assert signer.replace("\\", "").split(" ") == wanted
    assert "a\\=b\\,c/keys/release/id_ed25519" in signer
    assert len([line for line in lines if "NOPASSWD" in line]) == 2


def test_visudo_reads_the_rules(site: Site, tmp_path: Path) -> None:
    if not shutil.which("visudo"):
        pytest.skip("sudo is not installed: scripts/setup")
    file = tmp_path / "rules"
    file.write_text(sudo.rules(site))
    done = subprocess.run(["visudo", "-cf", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("word", ["a b", "a\nb", 'a"b'])
def test_a_word_that_a_rule_cannot_hold_is_refused(word: str) -> None:
    with pytest.raises(Refusal, match="cannot stand in a rule of sudo"):
        sudo.escaped(word)


def test_rules_are_put_in_place_once_and_taken_away(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0 or not shutil.which("visudo"):
        pytest.skip("needs root and sudo")
    monkeypatch.setattr(sudo, "FOLDER", tmp_path / "sudoers.d")
    site.paths.etc.mkdir(parents=True)
    sudo.ensure(site)
    path = sudo.path_of(site)
    assert "." not in path.name and path.stat().st_mode & 0o777 == 0o440
    made = path.stat().st_ino
    sudo.ensure(site)
    assert path.stat().st_ino == made
    sudo.remove(site)
    sudo.remove(site)
    assert not path.exists()
