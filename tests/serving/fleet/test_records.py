"""Journal and ledger with odd bytes in them: every whole line is read, every other is named."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.fleet.rollout.journal import LEDGER, ROLLOUTS, Journal, open_rollout
from serving.fleet.rollout.records import Before, entry_from, event_from, read_records

AT = "2026-01-01T00:00:00.000+00:00"


def entry(version: int, /, **changes) -> bytes:
    content = {"at": AT, "who": "eve@far", "action": "deploy", "rollout": f"r{version}",
               "model": "toy", "version": version, "digest": "d", **changes}  # fmt: skip
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


LINES = [
    entry(n, who=who) for n, who in enumerate(["eve", "ève@far", "e\u2028v\x85e", "€"], start=1)
]
FILE = b"".join(line + b"\n" for line in LINES)


def read(folder, data: bytes):
    path = folder / LEDGER
    path.write_bytes(data)
    return read_records(path, entry_from)


@settings(max_examples=400, deadline=None)
@given(
    place=st.integers(0, len(FILE)),
    odd=st.binary(max_size=60)
    | st.sampled_from([b"\n", b"\r\n", b"7\n", b'{"model":"m"}\n', "\u2028".encode(), b"\x85"])
    | st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
def test_whatever_bytes_are_put_anywhere_every_whole_line_is_read(tmp_path_factory, place, odd):
    data = FILE[:place] + odd + FILE[place:]
    found = read(tmp_path_factory.getbasetemp(), data)
    whole = [line for line in data.split(b"\n") if line.strip(b"\r") in LINES]
    seen = [json.dumps(one.who, ensure_ascii=False).encode() for one in found.entries]
    place_of = 0
    for line in whole:  # in order, and none of them lost
        wanted = json.dumps(json.loads(line)["who"], ensure_ascii=False).encode()
        place_of = seen.index(wanted, place_of) + 1
    lines = [line for line in data.split(b"\n") if line.strip()]
    accounted = len(found.entries) + len(found.broken)
    tail = data.rpartition(b"\n")[2]
    assert accounted == len(lines) or (accounted == len(lines) - 1 and tail.strip())


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, len(FILE)))
def test_a_file_cut_anywhere_loses_the_cut_line_alone(tmp_path_factory, cut):
    found = read(tmp_path_factory.getbasetemp(), FILE[:cut])
    assert len(found.entries) >= FILE[:cut].count(b"\n")
    assert found.broken == (), "the unfinished tail of a killed writer is no fault"


@settings(max_examples=300, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=20,
    ),
    key=st.sampled_from(["at", "who", "event", "rollout", "model", "version", "host", "before"]),
)
def test_a_line_of_any_json_is_an_event_or_broken(tmp_path_factory, value, key):
    path = tmp_path_factory.getbasetemp() / ROLLOUTS
    good = {"at": AT, "who": "eve@far", "rollout": "r1", "event": "before", "model": "toy",
            "version": 2, "host": "a", "before": Before((1,), None, "ready").as_json()}  # fmt: skip
    lines = [value, {**good, key: value}, good]
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    found = read_records(path, event_from)
    assert len(found.entries) + len(found.broken) == 3
    assert found.entries[-1].before == Before((1,), None, "ready")
    open_rollout(found.entries, ())  # and whatever passed is usable
    assert all(str(one) and "\n" not in str(one) for one in found.broken)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"7", "not an object"),
        (b'{"model":"m"}', "'action' is missing"),
        (b"\xff\xfe", "not UTF-8"),
        (b"{" + b'"a":{' * 100_000, "nested too deep|not JSON"),
        (entry(3)[:-4] + b"\xc3", "cut off"),
        (entry(3)[:40], "cut off"),
        (entry(3) + entry(4), "not JSON"),
        (entry(0), "0'? is not a version's number"),
        (entry(3, version=True), "is not a version's number"),
        (entry(3, model="x; touch /tmp/p #"), "is not a name"),
        (entry(3, action="lost"), "not one of deploy, rollback"),
        (entry(3, at="today"), "today"),
        (entry(3, at="2026-01-01T00:00:00"), "no time zone"),
        (b'{"at":"' + AT.encode() + b'","who":"\\ud800"}', "'action' is missing"),
    ],
)
def test_a_broken_line_has_its_place_and_reason(tmp_path, line, reason):
    found = read(tmp_path, b"\n".join([entry(1), line, entry(2), b""]))
    assert [one.version for one in found.entries] == [1, 2]
    (broken,) = found.broken
    assert str(broken).startswith(f"{tmp_path / LEDGER}:2: ")
    assert re.search(reason, str(broken)), str(broken)


def test_a_model_with_half_a_surrogate_pair_is_broken(tmp_path):
    found = read(tmp_path, json.dumps({**json.loads(entry(1)), "who": "\ud800"}).encode() + b"\n")
    assert len(found.broken) == 1


def test_the_journal_goes_on_after_a_line_torn_inside_a_letter(tmp_path):
    journal = Journal(tmp_path)
    journal.record("started", "r1", model="toy", version=2, note="é\u2028")
    with (tmp_path / ROLLOUTS).open("ab") as stream:
        stream.write('{"at":"2026","who":"é'.encode()[:-1])
    assert journal.broken_lines() == ()
    journal.record("done", "r1", model="toy", version=2)
    assert [one.event for one in journal.events("toy")] == ["started", "done"]
    assert journal.events("toy")[0].content["note"] == "é\u2028"
    (torn,) = journal.broken_lines()
    assert torn.torn and torn.number == 2
