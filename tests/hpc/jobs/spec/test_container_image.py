"""Container images: the words that are taken, what is digested, and bundles one cannot work in."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf import ConfigError
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.container_image import changed_image, check_container, frozen_image
from hpc.jobs.spec.job_spec import ContainerImage, read_spec
from tests.hpc.jobs.clusters import slurm_cluster
from tests.hpc.jobs.containers import bundle_config, make_bundle
from tests.hpc.jobs.spec.test_job_spec import spec_of

SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("image", "runtime"),
    [
        (None, "oci"),
        ("/images/torch-2.4+cu12", "oci"),
        ("/images/a@b=c_d.sqsh", "pyxis"),
        ("/images/..hidden/x.sif", "apptainer"),
        (f"docker://nvcr.io/nvidia/pytorch@sha256:{SHA}", "pyxis"),
        (f"docker://localhost:5000/a/b.c-d@sha256:{SHA}", "apptainer"),
    ],
)
def test_words_that_name_an_image(image: str | None, runtime: str) -> None:
    check_container(slurm_cluster(container=image, container_runtime=runtime))


@pytest.mark.parametrize(
    "image",
    [
        "", "torch", "./torch", "images/torch", "--container=/x", "-x", "/", "//x", "/x/",
        "/x/../y", "/x/.", "/x\n#SBATCH --uid=0", "/x y", "/x,y", "/x:y", "/x;id", "/x$(id)",
        "/x`id`",
        "/x'y", "/x\u2028y", "/x%j", "~/x", "docker:///x", "docker://x y", "docker://-x", "docker://x;id",
        "docker://x@sha256:abc", "docker://x\n", f"docker://x@sha256:{SHA}\n", f"docker://x@sha1:{SHA}",
        "http://x", f"docker://{'x:' * 3}y@sha256:{SHA}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("runtime", ["oci", "pyxis", "apptainer"])
def test_words_that_name_none(image: str, runtime: str) -> None:
    with pytest.raises(ValueError, match=r"^container="):
        check_container(slurm_cluster(container=image, container_runtime=runtime))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"container_python": "python3 -c x"}, "container_python='python3 -c x'"),
        ({"container_python": "-c"}, "container_python=-c: must"),
        ({"container_python": ""}, "container_python=''"),
        ({"container_mounts": ["/ok", "/a:/b"]}, "container_mounts: '/a:/b'"),
        ({"container_mounts": ["data"]}, "container_mounts: data must"),
        ({"container_mounts": ["/a\n/b"]}, "container_mounts: "),
        ({"kind": "local"}, "started by Slurm"),
    ],
)
def test_other_words_beside_an_image(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        check_container(slurm_cluster(container="/x", **changes))
    check_container(slurm_cluster(container=None, **changes))


@pytest.mark.parametrize(
    ("image", "runtime", "message"),
    [
        ("docker://nvcr.io/nvidia/pytorch:24.10", "pyxis",
         "Name its digest: docker://nvcr.io/nvidia/pytorch@sha256:DIGEST"),
        ("docker://pytorch", "apptainer", "Name its digest: docker://pytorch@sha256:DIGEST"),
        (f"docker://x/y:1@sha256:{SHA}", "pyxis", f"not both: docker://x/y@sha256:{SHA}"),
        (f"docker://x@sha256:{SHA}", "oci", "bundle on disk"),
    ],
)  # fmt: skip
def test_a_name_of_a_registry_that_is_none(image: str, runtime: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^container=") as caught:
        check_container(slurm_cluster(container=image, container_runtime=runtime))
    assert message in str(caught.value)


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(ValueError, match=r"container_runtime=docker: choose one of oci, pyxis"):
        slurm_cluster(container_runtime="docker")


def test_a_registrys_digest_is_the_images() -> None:
    image = f"docker://x/y@sha256:{SHA}"
    found = frozen_image(slurm_cluster(container=image, container_runtime="pyxis"))
    assert found == ContainerImage(image, "pyxis", SHA)
    assert frozen_image(slurm_cluster()) is None


@pytest.mark.parametrize(("name", "runtime"), [("x.sqsh", "pyxis"), ("x.sif", "apptainer")])
def test_a_files_digest_is_of_its_bytes(tmp_path: Path, name: str, runtime: str) -> None:
    path = tmp_path / name
    cluster = slurm_cluster(container=str(path), container_runtime=runtime)
    with pytest.raises(ConfigError, match=f"x.{name[2:]} is not there"):
        frozen_image(cluster)
    path.write_text("image")
    first = frozen_image(cluster)
    assert first is not None and len(first.digest) == 64
    os.utime(path, (1, 1))
    assert changed_image(first, cluster) == ""
    path.write_text("another")
    assert changed_image(first, cluster).startswith(f"the container image {path} was changed: its")
    path.unlink()
    assert changed_image(first, cluster).startswith("the container image is not as it was frozen")


def bundle_cluster(tmp_path: Path, **changes: Any) -> ClusterConfig:
    runs = str(tmp_path / "runs")
    config = bundle_config([runs])
    bundle = make_bundle(tmp_path / "bundle", config)
    settings = {"container_mounts": [runs], "container_python": "/usr/bin/python3", **changes}
    return slurm_cluster(container=str(bundle), **settings)


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        (lambda root: (root / "this-is-the-image").write_text("no\n"), True),
        (lambda root: (root / "this-is-the-image").chmod(0o755), True),
        (lambda root: (root / "new").touch(), True),
        (lambda root: (root / "new").mkdir(), True),
        (lambda root: (root / "this-is-the-image").rename(root / "else"), True),
        (lambda root: ((root / "bin").unlink(), (root / "bin").symlink_to("/else")), True),
        (lambda root: (root / "new").symlink_to("."), True),
        (lambda root: os.mkfifo(root / "new"), True),
        (lambda root: (root.parent / "config.json").open("a").write(" "), True),
        (lambda root: os.utime(root / "this-is-the-image", (1, 1)), False),
        (lambda root: (root.parent / "beside").touch(), False),
    ],
)
def test_a_bundles_digest_is_of_every_entry(
    tmp_path: Path, change: Callable[[Path], object], moves: bool
) -> None:
    cluster = bundle_cluster(tmp_path)
    first = frozen_image(cluster)
    assert first is not None and frozen_image(cluster) == first
    change(tmp_path / "bundle" / "rootfs")
    assert bool(changed_image(first, cluster)) is moves


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["linux"]["namespaces"].append({"type": "network"}),
         "makes a network of its own"),
        (lambda config: config["mounts"].pop(), "does not bind"),
        (lambda config: config["mounts"][-1].update(source="/else"), "does not bind"),
        (lambda config: config["mounts"].append({"destination": "/", "source": "/x"}),
         "does not bind"),
        (lambda config: config["mounts"].pop(4), "there is no /usr/bin/python3 in it"),
        (lambda config: config["root"].update(path="/"), "must be a folder inside the bundle"),
        (lambda config: config["root"].update(path="../.."), "must be a folder inside the bundle"),
        (lambda config: config["root"].update(path="gone"), "must be a folder inside the bundle"),
        (lambda config: config["linux"]["namespaces"].append({"type": "network", "path": "/x"}),
         ""),
        (lambda config: config.pop("linux"), ""),
    ],
)  # fmt: skip
def test_a_bundle_in_which_a_job_could_not_work(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    cluster = bundle_cluster(tmp_path)
    config = bundle_config(cluster.container_mounts)
    change(config)
    (tmp_path / "bundle" / "rootfs" / "usr").joinpath("bin").mkdir()
    (tmp_path / "bundle" / "config.json").write_text(json.dumps(config))
    if message:
        with pytest.raises(ConfigError, match=message):
            frozen_image(cluster)
    else:
        assert frozen_image(cluster)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 99999, f'{{"x": "{"y" * (1 << 20)}"}}'])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    cluster = bundle_cluster(tmp_path)
    (tmp_path / "bundle" / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json is not the JSON of a bundle"):
        frozen_image(cluster)
    (tmp_path / "bundle" / "config.json").unlink()
    with pytest.raises(ConfigError, match="is no OCI bundle"):
        frozen_image(cluster)


def test_a_spec_keeps_the_image_and_older_code_refuses_it(tmp_path: Path) -> None:
    image = ContainerImage("/x.sif", "apptainer", SHA)
    spec = spec_of({"steps": 1}, container=image)
    other = spec_of({"steps": 1}, container=dataclasses.replace(image, digest="f" * 64))
    assert len({spec.digest, other.digest, spec_of({"steps": 1}).digest}) == 3
    spec.write(tmp_path / "spec.yaml")
    assert read_spec(tmp_path / "spec.yaml", spec.digest).container == image
    assert (spec.content()["format"], spec_of({}).content()["format"]) == (4, 2)
