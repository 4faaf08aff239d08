"""Pages of both planes: whole in themselves, and nothing of others is markup in them."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.page import BASE_STYLE, duration, escaped, page_document, utc
from hpc.report.style import STYLE as TRAINING
from serving.fleet.report.style import STYLE as FLEET


class Found(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value for name, value in attrs if name == "title"]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(1, 50))
def test_a_text_is_text_between_tags_and_in_quotes(text, letters):
    found = Found(f'<p title="{escaped(text, letters)}">{escaped(text, letters)}</p>')
    assert found.tags == ["p"]
    assert len(found.titles) == 1


def test_a_long_text_is_cut_and_a_command_to_the_terminal_is_shown():
    assert escaped("x" * 700).endswith("…") and len(escaped("x" * 700)) == 600
    assert escaped("\x1b[2J<b>", 20) == "\\x1b[2J&lt;b&gt;"
    assert escaped(3.5) == "3.5"


@pytest.mark.parametrize("script", ["", "document.title = 1"])
def test_a_page_runs_its_own_script_and_loads_nothing(script):
    text = page_document("<t>", "<p>body</p>", ".own {}", script)
    assert "default-src 'none'" in text and "<title>&lt;t&gt;</title>" in text
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (f"script-src 'sha256-{digest}'" in text) == bool(script)
    assert Found(text).tags.count("script") == bool(script)
    assert "http://" not in text and "https://" not in text


def test_what_pages_share_stands_once():
    """A rule of the common style is in no page's own; they come after it and may add to it."""
    rules = {line for line in BASE_STYLE.splitlines() if line.endswith("}")}
    assert len(rules) > 10
    for own in (TRAINING, FLEET):
        assert not rules & set(own.splitlines())
        assert "--open:" in own


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0.44, "0.4 s"), (12.4, "12 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"),
     (273600, "3 days 4 h"), (86400, "1 day"), (864000, "10 days")],
)  # fmt: skip
def test_a_span_in_two_units(seconds, text):
    assert duration(seconds) == text


def test_a_moment():
    assert utc(0) == "1970-01-01 00:00:00 UTC"
