import pyarrow
import pyarrow.parquet

from llama_adapter.data.containers import CONTAINERS, read_csv, read_parquet, read_tsv, register_container
from llama_adapter.data.records import RawRow


def test_quoted_cells_may_run_over_lines_and_rows_keep_their_first_line(write):
    path = write("a.csv", 'instruction,output\n"two\nlines","a, b"\n\nlast,"say ""hi"""\n')
    assert list(read_csv(path, "a.csv")) == [
        RawRow("a.csv:2", {"instruction": "two\nlines", "output": "a, b"}),
        RawRow("a.csv:5", {"instruction": "last", "output": 'say "hi"'}),
    ]


def test_tabs_separate_and_commas_do_not(write):
    path = write("a.tsv", "caption\turl\na cat, asleep\tcat.jpg\n")
    assert list(read_tsv(path, "a.tsv")) == [
        RawRow("a.tsv:2", {"caption": "a cat, asleep", "url": "cat.jpg"})
    ]


def test_a_repeated_column_ends_the_file(write):
    rows = list(read_csv(write("a.csv", "a,b,a\n1,2,3\n"), "a.csv"))
    assert rows == [RawRow("a.csv:1", problem="the header has the column 'a' more than once")]


def test_a_nameless_column_ends_the_file(write):
    assert "without a name" in next(read_csv(write("a.csv", "a,,b\n1,2,3\n"), "a.csv")).problem


def test_rows_of_the_wrong_width_are_problems_and_the_others_are_read(write):
    rows = list(read_csv(write("a.csv", "a,b\n1,2\n1\n1,2,3\n3,4\n"), "a.csv"))
    assert [row.problem for row in rows] == [
        "",
        "the row has 1 cells, the header 2",
        "the row has 3 cells, the header 2",
        "",
    ]
    assert rows[-1] == RawRow("a.csv:5", {"a": "3", "b": "4"})


def test_an_open_quote_is_a_problem(write):
    rows = list(read_csv(write("a.csv", 'a,b\n1,2\n"open,3\n'), "a.csv"))
    assert rows[0].row == {"a": "1", "b": "2"}
    assert [row.record_id for row in rows[1:]] == ["a.csv:3"]
    assert "not a valid row" in rows[1].problem


def test_parquet_rows_come_in_order_with_nested_values(tmp_path):
    rows = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(600)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = list(read_parquet(tmp_path / "a.parquet", "a"))
    assert [row.row for row in read] == rows
    assert read[-1].record_id == "a:600"


def test_parquet_that_is_none_or_has_a_column_twice(write, tmp_path):
    assert "cannot be read" in next(read_parquet(write("bad.parquet", b"PAR1 not really"), "bad")).problem
    table = pyarrow.table([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "twice.parquet")
    assert "'a' more than once" in next(read_parquet(tmp_path / "twice.parquet", "twice")).problem


def test_a_new_container_is_one_registration(monkeypatch):
    monkeypatch.setattr("llama_adapter.data.containers.CONTAINERS", dict(CONTAINERS))
    register_container(lambda path, name: iter([RawRow(f"{name}:1", {"a": 1})]), ".one", ".two")
    from llama_adapter.data import containers

    assert containers.CONTAINERS[".two"] is containers.CONTAINERS[".one"]
