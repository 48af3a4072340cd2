"""Arithmetic word problems: GSM8K's files to rows of tokens, and the number an answer ends with.

Unusual: training rows carry loss on the whole text, as the table's script has it; test rows on the answer
alone. The tokens come from the project's own encoder, so a prompt has the same ones in training and in
generation. Models are not known here.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from llama_adapter.data import Encoder, Turn, load_template
from llama_adapter.data.encoding import answer_labels
from llama_adapter.errors import UserError

TRAIN_FILE, TEST_FILE = "train_first2000.jsonl", "test_1319.jsonl"

_MARKS = re.compile(r"(?:The (?:final )?answer is:? |#### )")
"""What comes before the final answer, in GSM8K and in MetaMathQA."""

_NUMBER = re.compile(r"(-?[0-9][0-9,]*(?:\.[0-9]+)?)(?: ?/ ?([0-9][0-9,]*))?")
"""A number, or a fraction of two."""


@dataclass(frozen=True)
class Problem:
    """A question with its worked answer."""

    query: str
    """The question."""
    response: str
    """The steps and, behind ``####``, the number."""


def read_problems(path: Path) -> list[Problem]:
    """Read one of GSM8K's files.

    Args:
        path: JSON lines with ``question`` and ``answer``.

    Raises:
        UserError: A line has other fields, or its answer no final number.
    """
    problems = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if not {"question", "answer"} <= row.keys() or final_answer(row["answer"]) is None:
            raise UserError(
                f"{path}:{number} is {line[:60]!r}. Use GSM8K's lines: question, answer with '#### NUMBER'."
            )
        problems.append(Problem(row["question"], row["answer"]))
    return problems


def build_rows(
    problems: Sequence[Problem],
    tokenizer: PreTrainedTokenizerBase,
    query_template: str,
    max_length: int,
    whole_text: bool,
) -> list[dict[str, Any]]:
    """Problems as rows for the trainer.

    Args:
        problems: what to encode.
        tokenizer: the base model's.
        query_template: the prompt, with ``{query}``.
        max_length: rows of more tokens are left out.
        whole_text: loss on prompt and answer, or on the answer alone.

    Returns:
        Rows with ``input_ids``, ``labels`` and ``record_id``.
    """
    template, encoder = load_template("plain", tokenizer), Encoder(tokenizer)
    prompts = [query_template.format(query=problem.query) for problem in problems]
    rendered = [
        template.render([Turn("user", prompt), Turn("assistant", problem.response)])
        for prompt, problem in zip(prompts, problems, strict=True)
    ]
    rows = []
    for at, encoded in enumerate(encoder.encode(rendered, template.add_special_tokens)):
        if len(encoded.ids) <= max_length:
            labels = list(encoded.ids) if whole_text else answer_labels(encoded, rendered[at].answers)
            rows.append({"input_ids": encoded.ids, "labels": labels, "record_id": f"problem {at + 1}"})
    return rows


def final_answer(text: str) -> float | str | None:
    """What stands behind the last mark of a final answer.

    Args:
        text: an answer, or what a model wrote.

    Returns:
        A number (fractions are divided, thousands separators dropped), the text where it is none, or None
        without any mark.
    """
    found = list(_MARKS.finditer(text))
    if not found:
        return None
    answer = text[found[-1].end() :].strip().split("\n", 1)[0].strip(" .!?$%")
    number = _NUMBER.fullmatch(answer)
    if number is None:
        return answer
    above, below = (float((part or "1").replace(",", "")) for part in number.groups())
    return above / below if below else answer


def exact_match(outputs: Sequence[str], problems: Sequence[Problem]) -> float:
    """Share of outputs that end with the right number; an output without a mark is wrong."""
    right = [
        final_answer(output) == final_answer(problem.response)
        for output, problem in zip(outputs, problems, strict=True)
    ]
    return sum(right) / len(right)
