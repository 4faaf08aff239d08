"""The schema of the flights data, in one place: source tables, features, prepared splits.

Only what is known before departure is a feature. The weather is that of the scheduled hour at the
origin: an observation, standing in for the forecast of that hour.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class FeatureSpec:
    """One raw feature column of the prepared splits and of the serving API.

    `kind` is how the transform treats it (see `serving.runtime.features`); `low` and `high` bound
    what is possible, in the feature's unit.
    """

    name: str
    kind: str
    dtype: str
    nullable: bool = False
    low: float = 0.0
    high: float = 0.0


SOURCE: dict[str, dict[str, pa.DataType]] = {
    "flights": {
        "year": pa.int32(),
        "month": pa.int32(),
        "day": pa.int32(),
        "dep_time": pa.float64(),  # empty: cancelled. Never a feature.
        "arr_delay": pa.float64(),  # the label comes from it. Never a feature.
        "sched_dep_time": pa.int32(),  # hhmm, local
        "sched_arr_time": pa.int32(),  # hhmm, local at the destination
        "carrier": pa.string(),
        "tailnum": pa.string(),
        "origin": pa.string(),
        "dest": pa.string(),
        "distance": pa.float32(),  # miles
        "time_hour": pa.string(),  # scheduled hour, ISO 8601 in UTC
    },
    "weather": {
        "origin": pa.string(),
        "time_hour": pa.string(),
        "temp": pa.float32(),  # degrees Fahrenheit
        "dewp": pa.float32(),  # degrees Fahrenheit
        "humid": pa.float32(),  # percent
        "wind_dir": pa.float32(),  # degrees
        "wind_speed": pa.float32(),  # miles per hour
        "wind_gust": pa.float32(),  # miles per hour; empty when there was no gust
        "precip": pa.float32(),  # inches
        "pressure": pa.float32(),  # millibars
        "visib": pa.float32(),  # miles
    },
    "planes": {
        "tailnum": pa.string(),
        "year": pa.float32(),  # of manufacture
        "manufacturer": pa.string(),
        "seats": pa.float32(),
    },
}

NULLABLE = {
    "flights": {"dep_time", "arr_delay", "tailnum"},
    "weather": set(SOURCE["weather"]) - {"origin", "time_hour"},
    "planes": {"year", "manufacturer", "seats"},
}

FEATURES: tuple[FeatureSpec, ...] = (
    FeatureSpec("carrier", "category", "BYTES"),
    FeatureSpec("origin", "category", "BYTES"),
    FeatureSpec("dest", "category", "BYTES"),
    FeatureSpec("manufacturer", "category", "BYTES", nullable=True),
    FeatureSpec("weekday", "category", "INT32"),  # 0 is Monday
    FeatureSpec("sched_dep_minute", "number", "INT32", low=0, high=1440),  # since midnight
    FeatureSpec("sched_arr_minute", "number", "INT32", low=0, high=1440),  # since midnight
    FeatureSpec("distance", "number", "FP32", low=1, high=12_500),
    FeatureSpec("plane_year", "number", "FP32", nullable=True, low=1930, high=2100),
    FeatureSpec("seats", "number", "FP32", nullable=True, low=1, high=900),
    FeatureSpec("temp", "number", "FP32", nullable=True, low=-80, high=140),
    FeatureSpec("dewp", "number", "FP32", nullable=True, low=-80, high=100),
    FeatureSpec("humid", "number", "FP32", nullable=True, low=0, high=105),
    FeatureSpec("wind_dir", "angle", "FP32", nullable=True, low=0, high=360),
    # The source has one hour at 1,048 mph: beyond `high` is missing, in training and in serving.
    FeatureSpec("wind_speed", "number", "FP32", nullable=True, low=0, high=250),
    FeatureSpec("wind_gust", "number", "FP32", nullable=True, low=0, high=300),
    FeatureSpec("precip", "number", "FP32", nullable=True, low=0, high=15),
    FeatureSpec("pressure", "number", "FP32", nullable=True, low=850, high=1100),
    FeatureSpec("visib", "number", "FP32", nullable=True, low=0, high=200),
)

ARROW = {"BYTES": pa.string(), "INT32": pa.int32(), "FP32": pa.float32()}

PREPARED = pa.schema(
    [
        *(pa.field(one.name, ARROW[one.dtype], nullable=one.nullable) for one in FEATURES),
        pa.field("day", pa.date32(), nullable=False),
        pa.field("late", pa.int8(), nullable=False),
    ]
)
