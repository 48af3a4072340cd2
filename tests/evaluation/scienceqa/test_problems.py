import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.scienceqa.problems import read_problems


def row(**changes):
    content = {"question": "Which?", "choices": ["a", "b"], "answer": 1, "hint": "", "image": None}
    return content | {"subject": "natural science", "grade": "grade7", "split": "test"} | changes


def test_the_official_layout(save, tmp_path):
    problems = save(
        "problems.json", {"4": row(), "5": row(image="image.png", hint="h"), "6": row(split="val")}
    )
    splits = save("pid_splits.json", {"test": ["5", "4"], "val": ["6"]})
    (tmp_path / "images/test/5").mkdir(parents=True)
    (tmp_path / "images/test/5/image.png").touch()
    found = read_problems([problems], "test", splits, str(tmp_path / "images"))
    assert [problem.id for problem in found] == ["5", "4"]
    assert found[0].image == str(tmp_path / "images/test/5/image.png")
    assert (found[0].has_image, found[1].has_image, found[1].grade) == (True, False, 7)
    assert [problem.id for problem in read_problems([problems], "val")] == ["6"]


def test_lines_in_several_files(save, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.jpg").touch()
    one = save("one.jsonl", [row(pid="1", image="images/x.jpg", grade=None)])
    two = save("two.jsonl", [row(pid="2")])
    found = read_problems([one, two], "test")
    assert [(problem.id, problem.grade) for problem in found] == [("1", None), ("2", 7)]
    assert found[0].image == str(tmp_path / "images/x.jpg")
    with pytest.raises(UserError, match="the problem '1' came before"):
        read_problems([one, one], "test")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (row(answer=2), "answer is 2 for 2 choices. Use the index"),
        (row(answer=None), "answer is None"),
        (row(choices=["a"]), "is no question. Add question and two or more choices"),
        (row(question=None), "is no question"),
        (row(grade="grade13"), "grade is 'grade13'. Use grade1 to grade12"),
        ("text", "problem 1 is 'text'"),
    ],
)
def test_incomplete_questions_are_named(save, content, said):
    with pytest.raises(UserError, match=said):
        read_problems([save("p.json", {"1": content})], "test")


def test_wrong_splits_are_named(save):
    path = save("p.json", {"1": row()})
    with pytest.raises(UserError, match="hold no question of the split 'train'"):
        read_problems([path], "train")
    with pytest.raises(UserError, match="there is no split 'test'. Use one of 'val'"):
        read_problems([path], "test", save("s.json", {"val": ["1"]}))
