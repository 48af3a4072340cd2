import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llama_adapter.data.report import BAD, DROPPED, KEPT, TRUNCATED, Report


def filled():
    report = Report(100)
    report.add(KEPT, 20, 5)
    report.add(KEPT, 40, 10, media=1)
    report.add(TRUNCATED, 100, 30, left_out=2)
    report.add(DROPPED, 0, 0)
    report.add(BAD, 0, 0)
    return report


def test_every_record_is_counted_once():
    figures = filled().figures()
    assert figures.read == 5
    assert (figures.used, figures.truncated, figures.dropped, figures.bad) == (3, 1, 1, 1)
    assert figures.read == figures.used + figures.dropped + figures.bad
    assert (figures.tokens, figures.label_tokens, figures.answers_left_out, figures.with_media) == (
        160,
        45,
        2,
        1,
    )
    assert (figures.p50_length, figures.p90_length, figures.max_length) == (40, 100, 100)
    assert figures.mean_length == pytest.approx(160 / 3)
    assert figures.padding_share == pytest.approx(1 - 160 / 300)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=50))
def test_quantiles_are_lengths_that_occur_and_cover_their_share(lengths):
    report = Report(1000)
    for length in lengths:
        report.add(KEPT, length, 1)
    figures = report.figures()
    for share, value in ((0.5, figures.p50_length), (0.9, figures.p90_length)):
        assert value in lengths
        assert sum(length <= value for length in lengths) >= share * len(lengths)
        assert sum(length < value for length in lengths) < share * len(lengths)


def test_sources_add_up():
    both = filled()
    both.merge(filled())
    once, twice = filled().figures(), both.figures()
    assert twice.read == 2 * once.read
    assert twice.label_tokens == 2 * once.label_tokens
    assert twice.mean_length == once.mean_length


def test_without_rows_nothing_is_divided_by_zero():
    figures = Report(10).figures()
    assert (figures.mean_length, figures.p50_length, figures.padding_share) == (0.0, 0, 0.0)


def test_it_can_be_shown():
    console = Console(record=True, width=100)
    console.print(filled().table("training"))
    shown = console.export_text()
    assert "label tokens" in shown
    assert "padding if padded to 100" in shown
    assert "46.7%" in shown
    assert "5 records read, 3 used (1 truncated), 1 too long, 1 bad" in filled().summary()


def test_a_streamed_report_claims_nothing():
    report = Report(10, sources=2, streamed=True)
    console = Console(record=True, width=100)
    console.print(report.table("training"))
    assert "counted while they are read" in console.export_text()
    assert "streamed" in report.summary()
