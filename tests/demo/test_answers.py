import pytest

from llama_adapter.demo.answers import Answers, ask
from llama_adapter.demo.task import NEW_PHRASING, SEEN_PHRASING, make_task
from llama_adapter.generation import Generator, SamplingConfig
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama


@pytest.fixture
def held_out():
    return make_task(0, 10, 12).held_out


class Oracle(Generator):
    """A generator without a model: knows the answers, and which requests it is to get wrong."""

    def __init__(self, held_out, wrong=()):
        self.right = {item.request: item.answer for items in held_out.values() for item in items}
        self.wrong = set(wrong)
        self.batches = []

    def generate(self, requests, settings):
        self.batches.append(requests)
        return ["no" if request in self.wrong else f"{self.right[request]}\n" for request in requests]


def test_answers_belong_to_their_items_whatever_the_batches(held_out):
    oracle, seen = Oracle(held_out), []
    answers = ask(oracle, held_out, seen.append, SamplingConfig(batch_size=5))
    assert answers.exact_match() == answers.exact_match(SEEN_PHRASING) == 1.0
    assert seen == [5, 5, 2]
    lengths = [len(request) for batch in oracle.batches for request in batch]
    assert lengths == sorted(lengths)


def test_exact_match_counts_by_part(held_out):
    wrong = [item.request for item in held_out[NEW_PHRASING][:3]]
    answers = ask(Oracle(held_out, wrong), held_out, lambda count: None, SamplingConfig(batch_size=25))
    assert answers.exact_match(SEEN_PHRASING) == 1.0
    assert answers.exact_match(NEW_PHRASING) == 0.5
    assert answers.exact_match() == 0.75


def test_almost_right_is_wrong(held_out):
    items = {NEW_PHRASING: held_out[NEW_PHRASING][:1]}
    (item,) = items[NEW_PHRASING]
    for output, score in [
        (item.answer, 1.0),
        (f" {item.answer}\n", 1.0),
        (item.answer.replace(", ", ","), 0.0),
        (item.answer.upper(), 0.0),
        (item.answer + item.answer, 0.0),
        ("", 0.0),
    ]:
        answers = Answers(items=items, outputs={NEW_PHRASING: [output]}, seconds=1.0)
        assert answers.exact_match() == score


def test_a_real_model_answers_alike_in_batches_and_alone(held_out):
    generator = Generator(tiny_llama(), byte_tokenizer(CHAT_TEMPLATE), "chat")
    outputs = [
        ask(
            generator, held_out, lambda count: None, SamplingConfig(max_new_tokens=6, batch_size=size)
        ).outputs
        for size in (1, 7)
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0][SEEN_PHRASING])) > 1
