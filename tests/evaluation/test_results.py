from io import StringIO

from rich.console import Console

from llama_adapter.evaluation.results import Row, Scores, print_scores, share, write_scores


def scores():
    return Scores(
        "Task", [share("A", [True, False, True]), Row("B", 0.0, 0)], [{"id": "1"}], ["a note"], {"s": 1}
    )


def test_a_score_of_nothing_is_a_dash_and_null():
    assert [row.shown() for row in scores().rows] == ["66.67", "-"]
    assert scores().to_dict()["scores"] == {"A": 200 / 3, "B": None}
    assert scores().to_dict()["correct"] == {"A": 2}
    assert scores().value("A") == 200 / 3


def test_the_table_has_every_row_and_the_notes():
    out = StringIO()
    print_scores(scores(), Console(file=out, width=80))
    for word in ("Task", "A", "66.67", "B", "a note"):
        assert word in out.getvalue()


def test_records_go_beside_the_scores(tmp_path):
    items = write_scores(scores(), str(tmp_path / "deep/run.json"))
    assert items == tmp_path / "deep/run.items.jsonl"
    assert items.read_text() == '{"id": "1"}\n'
