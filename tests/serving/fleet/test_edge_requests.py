"""The edge's validator by property tests: an honest request always passes, a damaged one never ends
in a failure of the service, and its JSON is that of the standard."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from serving.artifact.golden import build_example, differences
from serving.artifact.tensors import DTYPES, numpy_dtype, triton_dtype
from serving.triton.kserve import HEADER_LENGTH, decode_answer, encode_request, fits_json
from tests.serving.fleet.bed import serving_env
from tests.serving.fleet.edge_bed import SAME, EdgeBed, running_edge, running_triton

pytestmark = [
    pytest.mark.triton,
    pytest.mark.skipif(
        not shutil.which("haproxy") or serving_env() is None,
        reason="haproxy or the serving environment is missing: scripts/setup",
    ),
]

TRIES = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
NO_LIMIT = {"max_requests_per_second_per_source": 1_000_000}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeBed]:
    folder = tmp_path_factory.mktemp("edge")
    with running_triton(folder) as port, running_edge(folder, port, **NO_LIMIT) as bed:
        yield bed


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeBed]:
    """An edge in front of a host that takes everything."""
    host = ThreadingHTTPServer(("127.0.0.1", 0), PatientHost)
    host.daemon_threads = True
    threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True).start()
    folder = tmp_path_factory.mktemp("validator")
    with running_edge(folder, host.server_address[1], **NO_LIMIT) as bed:
        yield bed
    host.shutdown()
    host.server_close()


class PatientHost(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def arrays(dtype: str, shapes: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[np.ndarray]:
    """Every value of the datatype; of BYTES also what is not UTF-8."""
    if dtype == "BYTES":
        words = st.one_of(st.text(max_size=9).map(str.encode), st.binary(max_size=9))
        return shapes.flatmap(lambda shape: hnp.arrays(object, shape, elements=words, fill=words))
    if dtype == "BF16":
        return hnp.arrays(np.uint16, shapes).map(lambda bits: bits.view(numpy_dtype(dtype)))
    return hnp.arrays(numpy_dtype(dtype), shapes)


def tensors(shapes: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[dict[str, np.ndarray]]:
    """Some of the inputs `x_*`, the others left out."""
    return st.lists(st.sampled_from(DTYPES), unique=True, max_size=4).flatmap(
        lambda dtypes: st.fixed_dictionaries({f"x_{one}": arrays(one, shapes) for one in dtypes})
    )


FLAT = st.integers(0, 6).map(lambda size: (size,))
ANY_SHAPE = st.lists(st.integers(0, 3), max_size=5).map(tuple)


@TRIES
@given(inputs=tensors(FLAT), binary=st.booleans(), wanted=st.booleans())
def test_what_encode_request_makes_is_answered(
    edge: EdgeBed, inputs: dict[str, np.ndarray], binary: bool, wanted: bool
) -> None:
    binary = binary or not fits_json(inputs)
    outputs = {name.replace("x_", "y_"): value for name, value in inputs.items()}
    request = encode_request(inputs, outputs if wanted else (), binary=binary)
    answer = edge.post(SAME, request.body, request.headers)
    assert answer.status == 200, answer.body
    given = {key.lower(): value for key, value in answer.headers.items()}
    decoded = decode_answer(answer.body, given.get(HEADER_LENGTH.lower()))
    found = {name: value for name, value in decoded.outputs.items() if name in outputs}
    # Triton's own reading of a JSON number may be one bit off.
    rtol = 0.0 if binary else 1e-14
    assert differences(build_example({}, outputs, atol=0.0, rtol=rtol), found) == []


@TRIES
@given(inputs=tensors(ANY_SHAPE), binary=st.booleans())
def test_every_shape_passes(
    validator: EdgeBed, inputs: dict[str, np.ndarray], binary: bool
) -> None:
    request = encode_request(inputs, binary=binary or not fits_json(inputs))
    answer = validator.post("any", request.body, request.headers)
    assert answer.status == 200, answer.body


@TRIES
@given(data=st.data())
def test_ids_parameters_and_a_mix_of_json_and_binary_pass(
    edge: EdgeBed, data: st.DataObject
) -> None:
    inputs = data.draw(tensors(FLAT))
    sent = []
    for name, value in inputs.items():
        tensor = InferInput(name, list(value.shape), triton_dtype(value.dtype))
        binary = data.draw(st.booleans()) or not fits_json({name: value})
        sent.append(tensor.set_data_from_numpy(value, binary_data=binary))
    outputs = [
        InferRequestedOutput(
            name.replace("x_", "y_"),
            binary_data=data.draw(st.booleans()) or not fits_json({name: value}),
        )
        for name, value in inputs.items()
    ]
    # No slash and no `triton_`: Triton keeps such names for itself.
    keys = st.text("abcö€😀", min_size=1, max_size=6)
    values = st.one_of(st.text(max_size=6), st.integers(-(2**31), 2**31), st.booleans())
    body, header = InferenceServerClient.generate_request_body(
        sent,
        outputs=data.draw(st.sampled_from([outputs, None])),
        request_id=data.draw(st.text(max_size=20)),
        sequence_id=data.draw(st.integers(0, 2**63)),
        sequence_start=data.draw(st.booleans()),
        sequence_end=data.draw(st.booleans()),
        priority=data.draw(st.integers(0, 2**32)),
        timeout=data.draw(st.sampled_from([None, 1_000_000])),
        parameters=data.draw(st.dictionaries(keys, values, max_size=3)),
    )
    headers = {} if header is None else {HEADER_LENGTH: str(header)}
    answer = edge.post(SAME, body, headers)
    assert answer.status == 200, (body, answer.body)


@TRIES
@given(
    inputs=tensors(ANY_SHAPE),
    indent=st.sampled_from([None, 0, 2, "\t"]),
    ascii_only=st.booleans(),
    order=st.randoms(use_true_random=False),
    nested=st.booleans(),
)
def test_json_passes_however_it_is_written(
    validator: EdgeBed,
    inputs: dict[str, np.ndarray],
    indent: Any,
    ascii_only: bool,
    order: Any,
    nested: bool,
) -> None:
    """Members in any order, lists nested as the shape is, NaN as Python writes it."""
    made = []
    for name, value in inputs.items():
        dtype = triton_dtype(value.dtype)
        if dtype in ("FP16", "BF16") or (dtype == "BYTES" and not fits_json({name: value})):
            continue
        words = value if dtype != "BYTES" else np.vectorize(bytes.decode, otypes=[object])(value)
        data = words.tolist() if nested and value.ndim else words.ravel().tolist()
        members: dict[str, Any] = {
            "name": name, "datatype": dtype, "shape": list(value.shape), "data": data,
            "parameters": None, "unknown": [{}, None, [1.5e-7]],
        }  # fmt: skip
        made.append({key: members[key] for key in order.sample(sorted(members), len(members))})
    text = json.dumps({"id": "ü", "inputs": made}, indent=indent, ensure_ascii=ascii_only)
    answer = validator.post("any", text.encode())
    assert answer.status == 200, (text, answer.body)


def is_strict(text: str) -> bool:
    """True for a value of RFC 8259 that the edge takes: no key twice, no half surrogate, no number
    that is infinite."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def finite(word: str) -> float:
        value, (_, _, power) = float(word), word.lower().partition("e")
        if np.isinf(value) or (value == 0 and int(power or 0) > 308):
            raise ValueError("too large")
        return value

    try:
        value = json.loads(
            text,
            object_pairs_hook=unique,
            parse_constant=finite_word,
            parse_float=finite,
            parse_int=finite,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def finite_word(word: str) -> float:
    raise ValueError(word)


PIECES = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", ",", ":", '"', '""', '"a"', '"\\u0061"', "\\", "\\ud83d\\ude00",
         "\\ud83d", "\\n", "\\x", "0", "1", "-", "+", ".", "e", "E5", "e999", "true", "false",
         "null", "nul", "NaN", " ", "\t", "\r", "\n", "\f", "\0", "\x7f", "ü", "😀"]
    ),
    max_size=8,
).map("".join)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(TRIES, max_examples=600)
@given(
    st.one_of(
        PIECES,
        st.builds(json.dumps, VALUES, ensure_ascii=st.booleans()),
        st.builds(lambda value, cut: json.dumps(value)[:cut], VALUES, st.integers(0, 30)),
    )
)
def test_the_json_is_that_of_the_standard(validator: EdgeBed, text: str) -> None:
    answer = validator.post("any", f'{{"inputs":[],"any":{text}}}'.encode("utf-8", "replace"))
    document = f'{{"inputs":[],"any":{text}}}'
    assert answer.status == (200 if is_strict(document) else 400), (text, answer.body)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([[1]]),
    st.sampled_from([*DTYPES, "x_FP32", "y_FP32", "binary_data_size", 2**31, 2**32, 2**62, 2**63]),
)


def damaged(draw: Any, value: Any) -> Any:
    """`value` with one of its parts replaced, left out or doubled."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 4)) == 0:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: damaged(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        middle = draw(st.sampled_from([[damaged(draw, value[place])], [], [value[place]] * 2]))
        return [*value[:place], *middle, *value[place + 1 :]]
    return draw(LEAVES)


@settings(TRIES, max_examples=500)
@given(data=st.data())
def test_a_damaged_request_is_never_the_services_failure(
    edge: EdgeBed, data: st.DataObject
) -> None:
    inputs = data.draw(tensors(FLAT))
    binary = data.draw(st.booleans()) or not fits_json(inputs)
    request = encode_request(inputs, ["given"], binary=binary)
    length = int(request.headers.get(HEADER_LENGTH, len(request.body)))
    document, rest = json.loads(request.body[:length]), request.body[length:]
    if data.draw(st.booleans()):
        text = json.dumps(damaged(data.draw, document)).encode()
    else:
        start = data.draw(st.integers(0, length))
        stop = data.draw(st.integers(start, min(length, start + 5)))
        text = request.body[:start] + data.draw(st.binary(max_size=4)) + request.body[stop:length]
    rest = rest[data.draw(st.integers(0, 2)) :] + data.draw(st.binary(max_size=2))
    headers = {HEADER_LENGTH: str(len(text))} if rest or binary else {}
    answer = edge.post(SAME, text + rest, headers)
    assert answer.status == 200 or 400 <= answer.status < 500, (text, answer)


@pytest.mark.parametrize("dtype", ["FP32", "FP64"])
def test_nan_in_json_passes_where_triton_reads_it(dtype: str, edge: EdgeBed) -> None:
    x = np.array([np.nan, np.inf, -np.inf], numpy_dtype(dtype))
    tensor = {"name": f"x_{dtype}", "datatype": dtype, "shape": [3], "data": x.tolist()}
    answer = edge.post(SAME, json.dumps({"inputs": [tensor]}))
    assert answer.status == 200
    assert np.array_equal(json.loads(answer.body)["outputs"][0]["data"], x, equal_nan=True)


def test_the_raw_bytes_of_an_only_input_pass(edge: EdgeBed) -> None:
    """Triton's form without any JSON: the shape is that of the model's config."""
    answer = edge.post("toy", np.float32([21]).tobytes(), {HEADER_LENGTH: "0"})
    assert answer.status == 200, answer.body
    assert answer.body.endswith(np.float32([42]).tobytes())


def test_a_body_in_chunks_passes(edge: EdgeBed) -> None:
    request = encode_request({"x_FP32": np.float32([1, 2])}, binary=False)
    assert edge.post(SAME, iter([request.body[:20], request.body[20:]])).status == 200
