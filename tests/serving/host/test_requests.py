"""The words of a command: whatever a client sends is a request by rule, or refused as one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.names import NAME
from serving.host.errors import HostRefusal
from serving.host.requests import VERBS, HostRequest, nonce_of, parse_request

NONCE = "0123456789abcdef"
WORDS = st.sampled_from(
    [*VERBS, "toy", "all", "none", "1", "1,2", "--fence", "--rollback", "--timeout", "../x", "a;b"]
)


@settings(deadline=None)
@given(command=st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=8).map(" ".join)))
def test_any_text_is_a_checked_request_or_a_refusal(command):
    try:
        request = parse_request(f"lockgate {NONCE} {command}")
    except HostRefusal as refusal:
        assert refusal.reason == "request"
        return
    assert request.verb in VERBS and 1 <= request.timeout_s <= 3600
    for word in request.arguments:
        assert not isinstance(word, str) or NAME.fullmatch(word)


@settings(deadline=None)
@given(command=st.text(max_size=100))
def test_only_a_framed_command_has_a_nonce(command):
    assert nonce_of(command) == "" or command.startswith("lockgate ")


def test_a_request_is_read_to_the_word():
    request = parse_request(f"lockgate {NONCE} serve toy 2,1 --fence 7 --timeout 90 --rollback")
    assert request == HostRequest("serve", ("toy", (1, 2)), 7, True, 90)
    assert nonce_of(f"lockgate {NONCE} serve toy 1") == NONCE


@pytest.mark.parametrize("nonce", ["", "0123", "G" * 16, "0" * 65, f"{NONCE}\n"])
def test_a_nonce_is_plain_hex(nonce):
    assert nonce_of(f"lockgate {nonce} facts toy") == ""
