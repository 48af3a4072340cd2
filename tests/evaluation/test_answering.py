"""A model answers a task: through the program with a tiny base, and with a predictor that counts its work."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from llama_adapter.cli import main
from llama_adapter.errors import UserError
from llama_adapter.evaluation.answering import evaluate_model
from llama_adapter.evaluation.scienceqa.task import ScienceQA, ScienceQAConfig
from llama_adapter.generation import Generator, SamplingConfig
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama


def problem(pid, **changes):
    content = {"pid": pid, "question": f"Which {'x' * int(pid)}?", "choices": ["north", "south"], "answer": 1}
    return content | {"hint": "", "image": None, "subject": "natural science", "grade": "grade7"} | changes


@pytest.fixture
def problems(save):
    return save("problems.jsonl", [problem(str(number)) for number in (3, 1, 5, 2, 4)])


class Counting:
    """Answers `B`, finds the first candidate likeliest, and remembers what it was asked."""

    sees_images = False

    def __init__(self, identity="one", fails_after=None):
        self.identity, self.fails_after = identity, fails_after
        self.asked, self.scored = [], []

    def length(self, question):
        return len(question.prompt)

    def answer(self, questions):
        if len(self.asked) == self.fails_after:
            raise KeyboardInterrupt
        self.asked.append([question.id for question in questions])
        return ["B"] * len(questions)

    def log_likelihoods(self, questions):
        self.scored.append([question.id for question in questions])
        return [[-1.0, -2.0] for _ in questions]


def ask(problems, predictor, **options):
    settings = {"base": "b", "output": "s.json", "batch_size": 2} | options
    config = ScienceQAConfig(problems=[problems], **settings)
    return evaluate_model(ScienceQA(config), config, Console(quiet=True), predictor)


def items(path="s.items.jsonl"):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_model_answers_and_its_answers_are_scored(problems, tiny_base, evaluate):
    """As the generator does for one prompt at a time; and the items are predictions again."""
    found, rows, printed = evaluate(
        "scienceqa", problems=problems, base=tiny_base, batch_size=2, max_new_tokens=6
    )
    alone = Generator(tiny_llama(), byte_tokenizer(CHAT_TEMPLATE))
    assert [row["id"] for row in rows] == ["3", "1", "5", "2", "4"]
    for row in rows:
        assert row["prompt"].startswith(
            f"Context: N/A\nQuestion: Which {'x' * int(row['id'])}?\nOptions: (A)"
        )
        assert alone.generate([row["prompt"]], SamplingConfig(max_new_tokens=6)) == [row["answer"]]
        assert {"read", "correct", "classes"} <= row.keys()
    assert len({row["answer"] for row in rows}) > 1
    assert found["model"]["base"] == str(tiny_base)
    assert "likelihood" not in found
    Path("copy.jsonl").write_text(Path("out/scores.items.jsonl").read_text())
    again, _, _ = evaluate("scienceqa", problems=problems, predictions="copy.jsonl", output="again.json")
    assert again["scores"] == found["scores"]
    assert "questions here" in printed


def test_likelihood_stands_beside_the_written_answers(problems, tiny_base, evaluate):
    options = {"problems": problems, "base": tiny_base, "max_new_tokens": 2, "limit": 3}
    both, rows, printed = evaluate("scienceqa", score="both", **options)
    assert both["settings"]["unread"] == sum(row["read"] is None for row in rows)
    for name in ("likelihood", "likelihood_per_character"):
        assert both[name]["counts"]["questions here"] == 3
        assert both[name]["correct"]["questions here"] == sum(row[name]["correct"] for row in rows)
    for row in rows:
        assert row["candidates"] == ["The answer is A.", "The answer is B."]
        chosen = row["log_likelihoods"].index(max(row["log_likelihoods"]))
        assert row["likelihood"]["read"] == "AB"[chosen]
    assert "by likelihood per character" in " ".join(printed.split())


def test_likelihood_alone_is_never_called_scores(problems):
    tables = ask(problems, Counting(), score="likelihood")
    assert set(tables) == {"likelihood", "likelihood_per_character"}
    content = json.loads(Path("s.json").read_text())
    assert "scores" not in content
    assert content["likelihood"]["scores"]["questions here"] == 0
    assert all("correct" not in item and "answer" not in item for item in items())


def test_questions_of_like_length_are_asked_together_the_longest_first(problems):
    predictor = Counting()
    ask(problems, predictor)
    assert predictor.asked == [["5", "4"], ["3", "2"], ["1"]]
    assert [item["id"] for item in items()] == ["3", "1", "5", "2", "4"]


def test_an_interrupted_run_asks_only_what_is_missing(problems):
    with pytest.raises(KeyboardInterrupt):
        ask(problems, Counting(fails_after=2))
    assert [item["id"] for item in items()] == ["5", "4", "3", "2"]
    again = Counting()
    scores = ask(problems, again)["written"]
    assert again.asked == [["1"]]
    assert scores.value("questions here") == 100
    finished = items()
    third = Counting()
    ask(problems, third)
    assert (third.asked, items()) == ([], finished)


def test_a_finished_run_takes_up_likelihoods_and_more_questions(problems):
    ask(problems, Counting(), limit=2)
    later = Counting()
    ask(problems, later, score="both")
    assert later.asked == [["5", "4"], ["2"]]
    assert later.scored == [["5", "4"], ["3", "2"], ["1"]]
    other = Counting()
    ask(problems, other, score="both", options_as="text")
    assert (other.asked, len(other.scored)) == ([], 3)
    assert items()[0]["candidates"] == ["north", "south"]


def test_answers_of_others_are_not_continued(problems):
    ask(problems, Counting())
    before = items()
    with pytest.raises(UserError, match="s.items.jsonl cannot be continued: .*other settings. Use another"):
        ask(problems, Counting("two"))
    with pytest.raises(UserError, match="'3' was asked in other words"):
        ask(problems, Counting(), format="QCM-A")
    assert items() == before


def test_pictures_are_refused_or_known_to_be_ignored(save):
    pictures = [problem("1", image="1.jpg"), problem("2"), problem("3", image={"bytes": None})]
    path = save("p.jsonl", pictures)
    with pytest.raises(UserError, match="2 of 3 questions have a picture.*'1', '3'. Use --ignore-images"):
        ask(path, Counting())
    scores = ask(path, Counting(), ignore_images=True)["written"]
    assert "2 of 3 questions have a picture, which the model was not shown." in scores.notes
    seeing = Counting("seeing")
    seeing.sees_images = True
    scores = ask(path, seeing, output="t.json")["written"]
    said = "2 of 3 questions were asked with their picture; the other 1 have none by nature."
    assert said in scores.notes
    assert [item["shown"] is not None for item in items("t.items.jsonl")] == [True, False, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "."], "output is '.', a folder."),
        (["--base", "./none", "--output", "s.json"], "'./none' does not exist"),
        (["--template", "alpacca"], "template is 'alpacca'"),
    ],
)
def test_wrong_input_leaves_with_2(problems, tiny_base, capsys, options, said):
    words = ["--problems", problems, "--base", str(tiny_base), *options]
    assert main(["evaluate", "scienceqa", *words]) == 2
    assert said in capsys.readouterr().err
