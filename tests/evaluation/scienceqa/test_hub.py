import datasets
import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.scienceqa.hub import hub_rows
from llama_adapter.evaluation.scienceqa.problems import read_problems


@pytest.fixture
def table():
    from PIL import Image

    pictures = [Image.new("RGB", (4, 4), "red"), None]
    rows = {
        "image": pictures,
        "question": ["Which?", "What?"],
        "choices": [["a", "b"], ["c", "d", "e"]],
        "answer": [1, 2],
        "hint": ["h", ""],
        "grade": ["grade2", "grade9"],
        "subject": ["natural science", "language science"],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "question": datasets.Value("string"),
            "choices": datasets.List(datasets.Value("string")),
            "answer": datasets.Value("int8"),
            **{name: datasets.Value("string") for name in ("hint", "grade", "subject")},
        }
    )
    return datasets.Dataset.from_dict(rows, features=features)


def check(source):
    found = read_problems([str(source)], "test")
    assert [(problem.id, problem.has_image, problem.answer) for problem in found] == [
        ("0", True, 1),
        ("1", False, 2),
    ]
    assert found[1].choices == ["c", "d", "e"]


def test_a_saved_data_set_is_read(table, tmp_path):
    datasets.DatasetDict({"test": table}).save_to_disk(tmp_path / "all")
    table.save_to_disk(tmp_path / "one")
    check(tmp_path / "all")
    check(tmp_path / "one")
    with pytest.raises(UserError, match="has no split 'validation'. Use one of"):
        list(hub_rows(str(tmp_path / "all"), "val"))


def test_parquet_is_read(table, tmp_path):
    (tmp_path / "data").mkdir()
    table.to_parquet(tmp_path / "data/test-00000.parquet")
    check(tmp_path / "data")
    check(tmp_path / "data/test-00000.parquet")
    with pytest.raises(UserError, match=r"holds no train\*.parquet"):
        list(hub_rows(str(tmp_path / "data"), "train"))


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="none.jsonl' does not exist. Check the path"):
        list(hub_rows(str(tmp_path / "none.jsonl"), "test"))
    with pytest.raises(UserError, match="cannot be read as ScienceQA's 'test' split"):
        list(hub_rows("no-such-owner/no-such-data", "test"))
