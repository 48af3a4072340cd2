import pytest

from llama_adapter.data.config import DataConfig, SourceConfig, parse_rows
from llama_adapter.errors import UserError

ONE = SourceConfig(path="a.json")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(None, (0, None)), ("0:800", (0, 800)), (":8", (0, 8)), ("800:", (800, None)), (":", (0, None))],
)
def test_rows_are_slices(rows, expected):
    assert parse_rows(rows) == expected


@pytest.mark.parametrize("rows", ["800", "a:b", "-5:", "5:5", "9:3"])
def test_other_rows_are_refused(rows):
    with pytest.raises(UserError, match=rf"rows is '{rows}'.* Use "):
        SourceConfig(path="a.json", rows=rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": []}, r"train is \[\]"),
        ({"train": [ONE], "max_length": 1}, "max_length is 1"),
        ({"train": [ONE], "shuffle_buffer": -1}, "shuffle_buffer is -1"),
        ({"train": [SourceConfig(path="b", weight=1.0), ONE]}, "'a.json' has no weight"),
        (
            {"train": [SourceConfig(path="b", streaming=True), ONE]},
            r"streaming is true for \['b'\] but not for all",
        ),
    ],
)
def test_settings_that_cannot_work_together(settings, message):
    with pytest.raises(UserError, match=message):
        DataConfig(**settings)


def test_weights_are_positive():
    with pytest.raises(UserError, match=r"weight is 0.0 for 'a'. Use a positive number"):
        SourceConfig(path="a", weight=0.0)


def test_the_command_line_reads_it():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--data", type=DataConfig)
    config = parser.parse_object({"data": {"train": [{"path": "a.json", "columns": {"output": "answer"}}]}})
    data = parser.instantiate(config).data
    assert data.train[0].columns == {"output": "answer"}
    assert data.max_length == 512
