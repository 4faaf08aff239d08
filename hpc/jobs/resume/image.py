"""The container image of a run that goes on: its parent's, unless another one is named."""

from __future__ import annotations

from collections.abc import Sequence

from hpc.jobs.errors import SpecChanged
from hpc.jobs.spec.config import ClusterConfig
from hpc.jobs.spec.container_image import frozen_image
from hpc.jobs.spec.job_spec import ContainerImage

NAMES_IT = ("cluster=", "cluster.container=")


def resumed_image(
    before: ContainerImage | None, cluster: ClusterConfig, overrides: Sequence[str], run: str
) -> tuple[ContainerImage | None, str]:
    """The image of a run that goes on from `run`, and a note on it, empty for none.

    Raises `SpecChanged` where the image of the same name is another one by now and the overrides
    do not name it, and `ConfigError` as `frozen_image` does.
    """
    image = frozen_image(cluster)
    if image == before:
        return image, ""
    named = any(one.startswith(NAMES_IT) for one in overrides)
    if before and image and image.digest != before.digest and not named:
        raise SpecChanged(
            f"the container image {image.image} is not the one that {run} trained in: its digest "
            f"is {image.digest[:12]}, frozen was {before.digest[:12]}. To go on in it as it is "
            f"now, name it: lockgate resume {run} cluster.container={image.image}"
        )
    now = f"in the container image {image.image}" if image else "without a container image"
    return image, f"it goes on {now}, which its parent did not"
