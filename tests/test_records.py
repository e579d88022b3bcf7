"""Records: plain values that display themselves, with everything escaped."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from IPython.lib.pretty import pretty

import autom8_lab as al
from autom8_lab.records import Context, Report, SearchAnswer, SearchHit, html_table

HOSTILE = "<script>alert('x')</script> & \"quotes\" </table>"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTEXT = Context(
    id="a",
    content=HOSTILE,
    summary=None,
    topic="<b>",
    source=None,
    priority=3,
    pinned=True,
    expires_at=None,
    superseded_by=None,
    token_count=4,
    content_hash="0" * 64,
    metadata={"<k>": "<v>"},
    created_at=NOW,
    updated_at=NOW,
    accessed_at=None,
    access_count=0,
    aliases=("<alias>",),
)
HIT = SearchHit(
    rank=1,
    context=CONTEXT,
    score=0.5,
    text_rank=1,
    text_score=2.0,
    semantic_rank=None,
    similarity=None,
    matched_terms=("<term>",),
    chunk=HOSTILE,
    chunk_start=0,
    chunk_end=10,
    age_days=0.0,
)


class Reader(HTMLParser):
    """Collects the tags and the text of a piece of HTML, as a browser would see them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


@pytest.mark.parametrize("record", [CONTEXT, HIT, Report({HOSTILE: HOSTILE})], ids=["context", "hit", "report"])
def test_a_notebook_shows_hostile_text_as_text(record: Any) -> None:
    shown = Reader(record._repr_html_())
    assert set(shown.tags) <= {"table", "caption", "tbody", "tr", "th", "td"}
    assert "script" not in shown.tags
    assert any(HOSTILE in cell for cell in ["".join(shown.cells)])


def test_a_context_shows_every_field_under_its_name() -> None:
    shown = Reader(CONTEXT._repr_html_()).cells
    assert shown[0] == "Context"
    assert shown[1::2] == list(Context.__dataclass_fields__)
    values = dict(zip(shown[1::2], shown[2::2], strict=True))
    assert (values["id"], values["content"], values["pinned"], values["summary"]) == ("a", HOSTILE, "True", "None")
    assert values["metadata"] == "{'<k>': '<v>'}"


def test_a_table_has_its_caption_escaped_and_may_be_empty() -> None:
    assert html_table([], caption="<x>") == "<table><caption>&lt;x&gt;</caption><tbody></tbody></table>"
    assert html_table([]) == "<table><tbody></tbody></table>"


def test_records_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        CONTEXT.topic = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        HIT.score = 1.0  # type: ignore[misc]
    assert replace(CONTEXT, topic="other").topic == "other"


def test_equal_records_are_equal() -> None:
    assert replace(CONTEXT) == CONTEXT
    assert replace(CONTEXT, priority=4) != CONTEXT


def test_a_report_is_a_dict_and_shows_as_two_columns() -> None:
    report = Report(contexts=3, engine="exact")
    assert report == {"contexts": 3, "engine": "exact"}
    assert report["engine"] == "exact"
    assert str(report) == repr(report) == "contexts  3\nengine    exact"


def test_a_report_shows_the_same_in_an_interactive_session() -> None:
    assert pretty(Report(contexts=3, engine="exact")) == "contexts  3\nengine    exact"


def test_an_empty_report_is_an_empty_text() -> None:
    assert str(Report()) == ""
    assert Report()._repr_html_() == "<table><tbody></tbody></table>"


def test_a_search_answer_iterates_over_its_hits() -> None:
    answer = SearchAnswer([HIT], "q", "text", None, None, None, 1.0)
    assert list(answer) == [HIT]  # type: ignore[call-overload]
    assert answer.filters == {}


def test_a_lab_and_what_it_returns_show_their_text_as_text(lab: al.Lab) -> None:
    lab.store_context(HOSTILE, context_id="a", topic="<b>", metadata={"<i>": "<u>"})
    for shown in (lab, lab.get_context("a"), lab.search("script")[0], lab.stats(), lab.health()):
        tags = set(Reader(shown._repr_html_()).tags)
        assert tags <= {"table", "caption", "tbody", "tr", "th", "td"}, type(shown)
