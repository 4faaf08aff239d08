"""A host's verdict on its own answers: what takes it out at the edge, and what may not."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.host.agent_port import AgentPort
from serving.host.agent_verdict import ServedVersion, is_definite, is_settled, verdict
from serving.host.golden_question import GoldenAnswer
from tests.serving.fleet.bed import free_port

GOOD, WRONG = GoldenAnswer(True, "", 0.1), GoldenAnswer(False, "y is off", 0.1)
BUSY = GoldenAnswer(None, "503", 0.1)
ANSWERS = st.lists(st.sampled_from([GOOD, WRONG, BUSY]), max_size=12)


def after(*answers: GoldenAnswer | None, state: str = "READY") -> ServedVersion:
    served = ServedVersion()
    for answer in answers:
        served = served.looked_at(state).answered(answer)
    return served


def line(served: ServedVersion, running: bool = True, settled: bool = True) -> str:
    return verdict(running, settled, {("toy", 2): served})


def test_two_wrong_answers_in_a_row_take_a_host_out_and_one_good_brings_it_back():
    assert line(after(GOOD, WRONG)) == "up"
    assert line(after(GOOD, WRONG, GOOD, WRONG)) == "up"
    assert line(after(WRONG, BUSY, WRONG)) == "down #toy/2 answers its golden questions wrongly"
    assert line(after(WRONG, WRONG, GOOD)) == "up"


@given(ANSWERS)
def test_a_busy_server_changes_no_verdict(answers):
    told = [answer for answer in answers if answer is not BUSY]
    assert line(after(*answers)) == line(after(*told))


@given(ANSWERS)
def test_a_host_is_out_exactly_when_its_last_two_answers_were_wrong(answers):
    told = [answer for answer in answers if answer is not BUSY]
    assert (line(after(*answers)) != "up") == (told[-2:] == [WRONG, WRONG])


def test_one_look_into_a_change_is_none_and_two_are():
    once = after(GOOD).looked_at("LOADING")
    assert line(once) == "up" and line(once.looked_at("READY")) == "up"
    assert line(once.looked_at("UNLOADING")) == "down #toy/2 is UNLOADING"
    assert line(once.looked_at("")) == "down #toy/2 is not loaded"


def test_a_version_that_answered_wrongly_and_then_left_is_named_by_its_state():
    left = after(WRONG, WRONG).looked_at("UNLOADING").looked_at("UNLOADING")
    assert line(left) == "down #toy/2 is UNLOADING"


def test_a_restarted_host_is_out_until_it_is_proven():
    fresh = ServedVersion()
    assert line(fresh, settled=False) == "down #toy/2 is not proven since Triton started"
    assert line(after(BUSY), settled=False).startswith("down")
    assert line(after(WRONG), settled=False).startswith("down")
    assert line(after(GOOD), settled=False) == "up"
    assert line(after(None), settled=False) == "up", "a version without golden questions"
    assert not is_settled({("toy", 2): fresh}) and is_settled({("toy", 2): after(GOOD)})


def test_a_version_that_is_loaded_beside_is_unknown_at_first_and_takes_nobody_out():
    assert verdict(True, True, {("toy", 1): after(GOOD), ("toy", 2): ServedVersion()}) == "up"


def test_a_host_without_a_triton_is_out_and_one_without_versions_is_not():
    assert line(after(GOOD), running=False) == "down #Triton does not run"
    assert verdict(True, False, {}) == "up" and is_settled({})


@pytest.mark.parametrize(
    ("served", "known"),
    [(ServedVersion(), False), (after(BUSY), False), (after(GOOD), True), (after(WRONG), True),
     (ServedVersion().looked_at(""), False), (ServedVersion().looked_at("").looked_at(""), True)],
)  # fmt: skip
def test_nothing_is_said_before_something_is_known(served, known):
    assert is_definite({("toy", 2): served}) is known


def read(endpoint: tuple[str, int]) -> bytes:
    with socket.create_connection(endpoint, timeout=5) as link:
        return link.makefile("rb").read()


def test_the_port_is_closed_until_there_is_a_line_and_then_gives_the_last_to_everybody():
    endpoint = ("127.0.0.1", free_port())
    port = AgentPort(endpoint)
    with pytest.raises(ConnectionRefusedError):
        read(endpoint)
    port.show("down #toy/2 is UNLOADING")
    assert read(endpoint) == b"down #toy/2 is UNLOADING\n"
    port.show("up")
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(read, [endpoint] * 64)) == {b"up\n"}


def test_callers_that_send_much_or_stay_hold_nobody_up():
    endpoint = ("127.0.0.1", free_port())
    AgentPort(endpoint).show("up")
    held = [socket.create_connection(endpoint, timeout=5) for _ in range(20)]
    for one in held[:10]:
        one.sendall(b"GET / HTTP/1.1\r\n" * 1000)
    assert read(endpoint) == b"up\n"
    for one in held:
        one.close()
    with pytest.raises(OSError, match="in use"):
        AgentPort(endpoint).show("up")
