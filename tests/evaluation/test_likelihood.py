"""Log-likelihoods of answers, against the model's plain forward pass."""

import pytest
import torch
from peft import get_peft_model

from llama_adapter import ZeroInitConfig
from llama_adapter.data import Turn
from llama_adapter.errors import UserError
from llama_adapter.evaluation.likelihood import AnswerScorer
from llama_adapter.generation import Generator
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama

PAIRS = [
    ("Which way?", "north"),
    ("Which way is it, asked the other?", "so"),
    ("?", "south west"),
    ("a", "b"),
]


@pytest.fixture(scope="module")
def adapted():
    model = get_peft_model(tiny_llama(), ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=4)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "zero_init" in name and "gate" in name:
                parameter.fill_(1.0)
    return model


def scored(model, template, pairs=PAIRS, **options):
    scorer = AnswerScorer(Generator(model, byte_tokenizer(CHAT_TEMPLATE), template))
    return scorer.log_likelihoods([([Turn("user", prompt)], answer) for prompt, answer in pairs], **options)


def by_hand(model, prompt, answer):
    """One row without padding, every logit: log P(answer's bytes | <s> prompt)."""
    tokenizer = byte_tokenizer()
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([tokenizer(prompt + answer)["input_ids"]])
    with torch.no_grad():
        logs = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(logs[place - 1, ids[0, place]].item() for place in range(start, ids.shape[1]))


@pytest.mark.parametrize(
    ("template", "text"), [("plain", "{}"), ("chat", "[user]{}[assistant]")], ids=["plain", "chat"]
)
def test_it_is_the_sum_over_the_tokens_of_the_answer_alone(template, text):
    """In any batch, whatever the neighbours' lengths; the end token does not count."""
    model = tiny_llama()
    expected = [by_hand(model, text.format(prompt), answer) for prompt, answer in PAIRS]
    for batch_size in (1, 3, 8):
        assert scored(model, template, batch_size=batch_size) == pytest.approx(expected, rel=1e-5)


def test_the_adapter_counts_while_it_is_on(adapted):
    found = scored(adapted, "plain")
    assert found == pytest.approx([by_hand(adapted, *pair) for pair in PAIRS], rel=1e-5)
    plain = scored(tiny_llama(), "plain")
    assert found != pytest.approx(plain, rel=1e-3)
    with adapted.disable_adapter():
        assert scored(adapted, "plain") == pytest.approx(plain, rel=1e-5)


def test_likelihoods_are_probabilities():
    """Those of all letters add up to less than one: the rest is that of other bytes and special tokens."""
    values = scored(tiny_llama(), "plain", [("Which?", chr(code)) for code in range(33, 127)])
    assert 0 < sum(torch.tensor(values).exp()) < 1


def test_what_cannot_be_scored_is_said(adapted):
    with pytest.raises(UserError, match="The answer '' to 'Which\\?' cannot be scored.*Use texts"):
        scored(adapted, "plain", [("Which?", "")])
    with pytest.raises(UserError, match="has 707 tokens, the model's context 512. Use shorter ones"):
        scored(adapted, "plain", [("a" * 700, "north")])


def test_the_model_is_left_as_it_was(adapted):
    before = adapted.get_output_embeddings().forward
    scored(adapted, "plain")
    assert adapted.get_output_embeddings().forward == before
    assert all(parameter.grad is None for parameter in adapted.parameters())
