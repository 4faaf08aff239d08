"""The container image of a run's ranks: its name as it is typed, and the digest that is frozen.

A file or folder is digested at submit; an image of a registry is named by its digest, since a tag
can mean another image tomorrow.
"""

from __future__ import annotations

import re
from pathlib import Path

from conf.errors import ConfigError
from conf.names import shown
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.container_bundle import bundle_digest, folder_digest
from hpc.jobs.spec.job_spec import ContainerImage
from serving.artifact.digest import file_sha256

# No space, comma or colon: the options of pyxis and apptainer separate by these.
FOLDER = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9_.+@=-]+)+", re.ASCII)
PROGRAM = re.compile(r"[A-Za-z0-9_.+/][A-Za-z0-9_.+/-]*", re.ASCII)
REGISTRY = "docker://"
REFERENCE = re.compile(
    r"docker://(?P<image>[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[A-Za-z0-9][A-Za-z0-9._-]*)*)"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.ASCII,
)


def check_container(cluster: ClusterConfig) -> None:
    """Raise ValueError, naming the key, for words that are no image, program or folder."""
    if cluster.container is None:
        return
    if cluster.kind != "slurm":
        raise ValueError(
            f"container={shown(cluster.container)}: containers are started by Slurm, and "
            f"cluster.kind={cluster.kind} starts the ranks in this Python"
        )
    if cluster.container.startswith(REGISTRY):
        _check_reference(cluster.container, cluster.container_runtime)
    elif not FOLDER.fullmatch(cluster.container):
        raise ValueError(
            f"container={shown(cluster.container)}: must be an absolute path of letters, digits "
            "and ._+@=- (an OCI bundle, a .sqsh or a .sif), or docker://IMAGE@sha256:DIGEST; null "
            "for none"
        )
    python = cluster.container_python
    if python is not None and not PROGRAM.fullmatch(python):
        raise ValueError(
            f"container_python={shown(python)}: must be the name or path of one program, such as "
            "python3"
        )
    for folder in cluster.container_mounts:
        if not FOLDER.fullmatch(folder):
            raise ValueError(
                f"container_mounts: {shown(folder)} must be an absolute path of letters, digits "
                "and ._+@=-, which is the same inside"
            )


def frozen_image(cluster: ClusterConfig) -> ContainerImage | None:
    """The image of the cluster's words with its digest of now; None without a container.

    Reads all of a file or folder. Raises `ConfigError` for one that is not there, cannot be read
    or is not what the runtime starts.
    """
    words = cluster.container
    if words is None:
        return None
    return ContainerImage(words, cluster.container_runtime, _digest(words, cluster))


def changed_image(frozen: ContainerImage, cluster: ClusterConfig) -> str:
    """The reason why the image is no longer the one that was `frozen`; empty where it is."""
    try:
        now = frozen_image(cluster)
    except ConfigError as error:
        return f"the container image is not as it was frozen: {error}"
    if now == frozen:
        return ""
    return (
        f"the container image {frozen.image} was changed: its digest is "
        f"{now.digest[:12] if now else 'none'}, frozen was {frozen.digest[:12]}"
    )


def reference_parts(words: str) -> tuple[str, str]:
    """(image, digest) of docker://IMAGE@sha256:DIGEST. Raises ValueError for other words."""
    match = REFERENCE.fullmatch(words)
    if match is None or not match["digest"]:
        raise ValueError(f"container={shown(words)}: no docker://IMAGE@sha256:DIGEST")
    return match["image"], match["digest"]


def _check_reference(words: str, runtime: str) -> None:
    match = REFERENCE.fullmatch(words)
    if match is None:
        raise ValueError(f"container={shown(words)}: must be docker://IMAGE@sha256:DIGEST")
    if runtime == "oci":
        raise ValueError(
            f"container={shown(words)}: Slurm's own containers start from a bundle on disk. Unpack "
            "it (skopeo copy, umoci unpack) and name the folder, or set "
            "cluster.container_runtime=pyxis or apptainer"
        )
    if not match["digest"]:
        raise ValueError(
            f"container={shown(words)}: a tag can mean another image tomorrow. Name its digest: "
            f"{REGISTRY}{match['image']}@sha256:DIGEST (skopeo inspect --format "
            f"'{{{{.Digest}}}}' {words})"
        )
    if match["tag"]:
        raise ValueError(
            f"container={shown(words)}: enroot and apptainer take a tag or a digest, not both: "
            f"{REGISTRY}{match['image']}@sha256:{match['digest']}"
        )


def _digest(words: str, cluster: ClusterConfig) -> str:
    if words.startswith(REGISTRY):
        return reference_parts(words)[1]
    path = Path(words)
    try:
        if cluster.container_runtime == "oci":
            return bundle_digest(path, cluster)
        if path.is_dir() and cluster.container_runtime == "apptainer":
            return folder_digest(path)
        if not path.is_file():
            there = "a folder" if path.is_dir() else "not there"
            kind = ".sqsh" if cluster.container_runtime == "pyxis" else ".sif"
            raise ConfigError(
                f"cluster.container={words} is {there}; "
                f"cluster.container_runtime={cluster.container_runtime} starts a {kind} file"
            )
        return file_sha256(path)
    except OSError as error:
        raise ConfigError(
            f"cluster.container={words} cannot be read: {error.filename}: {error.strerror}"
        ) from None
