"""The load of all models of a region as one number: the hosts that it keeps at their knee.

Every host of a region serves every model, so the models share the hosts: each model's requests a
second over the knee that its release measured, added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.fleet.capacity.knee import Knee


@dataclass(frozen=True)
class Demand:
    """A load in hosts at their knee; None where a model's part is not known, said in `unknown`.

    `by_model` are the parts that are known.
    """

    load: float | None
    unknown: tuple[str, ...] = ()
    by_model: Mapping[str, float] = field(default_factory=dict)


def demand(per_s: Mapping[str, float | str], knees: Mapping[str, Knee | None]) -> Demand:
    """The load of models by their requests a second, or by a sentence where those are not known.

    A model without requests needs no knee; one with requests and none makes the sum unknown.
    """
    parts: dict[str, float] = {}
    unknown = []
    for model, rate in per_s.items():
        knee = knees.get(model)
        if isinstance(rate, str):
            unknown.append(f"{model}: {rate}")
        elif rate > 0 and knee is None:
            unknown.append(
                f"{model}: no gate of the version in production measured how much a host bears"
            )
        elif rate > 0 and knee is not None:
            parts[model] = rate / knee.requests_per_s
    return Demand(None if unknown else sum(parts.values()), tuple(unknown), parts)
