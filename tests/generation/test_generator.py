"""Answers: independent of their neighbours, equal to what the model itself would pick, and golden text."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from llama_adapter import ZeroInitConfig
from llama_adapter.data import Turn
from llama_adapter.errors import UserError
from llama_adapter.generation import Generator, SamplingConfig
from llama_adapter.generation.generator import default_template, left_pad
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama

PROMPTS = ["a", "Tell me about llamas, please.", "Count: 1 2 3", "ü→ß"]


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture
def generator(model):
    return Generator(model, byte_tokenizer(), "plain")


def by_hand(model, tokens, count, stops):
    """Greedy decoding without cache, padding or library."""
    new = []
    while len(new) < count:
        with torch.no_grad():
            token = model(torch.tensor([tokens + new])).logits[0, -1].argmax().item()
        if token in stops:
            break
        new.append(token)
    return new


def test_greedy_answer_is_what_the_model_picks_step_by_step(model, generator):
    for prompt in PROMPTS:
        tokens = generator.encode([Turn("user", prompt)])
        wanted = generator.tokenizer.decode(by_hand(model, tokens, 12, {2}), skip_special_tokens=True)
        assert generator.generate([prompt], SamplingConfig(max_new_tokens=12)) == [wanted]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batch_equals_single(generator, batch_size):
    limits = SamplingConfig(max_new_tokens=12, batch_size=batch_size)
    together = generator.generate(PROMPTS, limits)
    alone = [generator.generate([prompt], limits)[0] for prompt in PROMPTS]
    assert together == alone
    assert len(set(together)) > 1, (
        "the prompts must lead to different answers, or the comparison says nothing"
    )


def several_adapters():
    torch.manual_seed(0)
    config = ZeroInitConfig(prompt_length=3, gate_init_std=2.0, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_llama(), config, adapter_name="one")
    model.add_adapter("two", config)
    return model


def test_prompts_of_one_batch_go_through_their_own_adapters():
    model = several_adapters()
    generator = Generator(model, byte_tokenizer(), "plain")
    names = ["two", "__base__", "one", "two"]
    limits = SamplingConfig(max_new_tokens=12, batch_size=3)
    together = generator.generate(PROMPTS, limits, names)
    alone = []
    for prompt, name in zip(PROMPTS, names, strict=True):
        with model.disable_adapter() if name == "__base__" else nullcontext():
            model.set_adapter(name if name != "__base__" else "one")
            alone += generator.generate([prompt], limits)
    assert together == alone
    assert together != generator.generate(PROMPTS, limits)


def test_adapters_that_cannot_answer_are_refused(model):
    limits = SamplingConfig(max_new_tokens=2)
    with pytest.raises(UserError, match="There are 1 adapters for 4 prompts. Use one for each"):
        Generator(several_adapters(), byte_tokenizer(), "plain").generate(PROMPTS, limits, ["one"])
    with pytest.raises(UserError, match="the model has no adapters, or they are off"):
        Generator(model, byte_tokenizer(), "plain").generate(PROMPTS[:1], limits, ["one"])
    off = several_adapters()
    with off.disable_adapter(), pytest.raises(UserError, match="they are off. Use a PeftModel"):
        Generator(off, byte_tokenizer(), "plain").generate(PROMPTS[:1], limits, ["one"])


def test_an_adapter_changes_the_answer_and_batch_still_equals_single():
    torch.manual_seed(0)
    adapted = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    generator = Generator(adapted, byte_tokenizer(), "plain")
    limits = SamplingConfig(max_new_tokens=12)
    answers = generator.generate(PROMPTS, limits)
    assert answers == [generator.generate([prompt], limits)[0] for prompt in PROMPTS]
    with adapted.disable_adapter():
        assert generator.generate(PROMPTS, limits) != answers


def test_an_answer_ends_before_the_end_token(model, generator):
    tokens = generator.encode([Turn("user", "a")])
    second = by_hand(model, tokens, 2, {2})[1]
    before = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [2, second]
    try:
        short = generator.generate(["a", "Count: 1 2 3"], SamplingConfig(max_new_tokens=12))
    finally:
        model.generation_config.eos_token_id = before
    assert short[0] == generator.generate(["a"], SamplingConfig(max_new_tokens=1))[0]


def test_seed_repeats_and_leaves_the_random_state_alone(generator):
    state = torch.get_rng_state()
    drawn = [
        generator.generate(PROMPTS, SamplingConfig(max_new_tokens=12, temperature=1.5, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.equal(state, torch.get_rng_state())


def test_small_top_p_and_tiny_temperature_are_greedy(generator):
    greedy = generator.generate(PROMPTS, SamplingConfig(max_new_tokens=8))
    for choice in ({"top_p": 1e-6, "temperature": 2.0}, {"temperature": 1e-4}):
        assert generator.generate(PROMPTS, SamplingConfig(max_new_tokens=8, seed=3, **choice)) == greedy


def test_repetition_penalty_reaches_the_model(generator):
    limits = {"max_new_tokens": 24}
    assert generator.generate(["aaaa"], SamplingConfig(**limits)) != generator.generate(
        ["aaaa"], SamplingConfig(repetition_penalty=5.0, **limits)
    )


def test_the_models_own_sampling_defaults_are_not_used(model, generator):
    wanted = generator.generate(PROMPTS, SamplingConfig(max_new_tokens=8))
    model.generation_config.update(do_sample=True, temperature=9.0, top_k=3, repetition_penalty=9.0)
    try:
        assert generator.generate(PROMPTS, SamplingConfig(max_new_tokens=8)) == wanted
    finally:
        model.generation_config.update(do_sample=False, temperature=None, top_k=None, repetition_penalty=1.0)


def test_training_mode_comes_back_and_dropout_is_off(model, generator):
    wanted = generator.generate(PROMPTS, SamplingConfig(max_new_tokens=8))
    model.train()
    try:
        assert generator.generate(PROMPTS, SamplingConfig(max_new_tokens=8)) == wanted
        assert model.training
    finally:
        model.eval()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_streamed_pieces_join_to_the_answer(generator, prompt):
    pieces = []
    limits = SamplingConfig(max_new_tokens=16, temperature=3.0, seed=len(prompt))
    answer = generator.stream([Turn("user", prompt)], limits, pieces.append)
    assert "".join(pieces) == answer == generator.generate([prompt], limits)[0]


def test_chat_template_is_rendered_with_its_own_begin_token(model):
    generator = Generator(model, byte_tokenizer(CHAT_TEMPLATE), "chat")
    tokens = generator.encode([Turn("system", "be kind"), Turn("user", "hi")])
    assert generator.tokenizer.decode(tokens) == "<s>[system]be kind[user]hi[assistant]"


def test_default_template_is_the_tokenizers_own_or_plain():
    assert default_template(byte_tokenizer(CHAT_TEMPLATE)) == "chat"
    assert default_template(byte_tokenizer()) == "plain"
    assert Generator(tiny_llama(), byte_tokenizer()).template_name == "plain"


def test_unknown_template_and_unfit_conversation_are_refused(model):
    with pytest.raises(UserError, match="template is 'alpacca'"):
        Generator(model, byte_tokenizer(), "alpacca")
    generator = Generator(model, byte_tokenizer(), "alpaca")
    with pytest.raises(UserError, match="Use another --template"):
        generator.answer([[Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]])


def test_context_limit_shortens_answers_and_refuses_long_prompts(generator, caplog):
    context = generator.model.config.max_position_embeddings
    with pytest.raises(UserError, match=f"A prompt has {context + 1} tokens"):
        generator.generate(["x" * context])
    generator.generate(["x" * (context - 5)], SamplingConfig(max_new_tokens=50))
    assert "it is 4 here" in caplog.text


def test_an_empty_prompt_starts_from_the_begin_token_alone(generator):
    assert generator.encode([Turn("user", "")]) == [1]
    generator.tokenizer.bos_token = None
    generator.template.add_special_tokens = False
    with pytest.raises(UserError, match="'' has no tokens"):
        generator.encode([Turn("user", "")])


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_left_pad_keeps_every_row_at_the_right(rows):
    input_ids, mask = left_pad(rows, 0)
    assert input_ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, ids, seen in zip(rows, input_ids.tolist(), mask.tolist(), strict=True):
        assert ids == [0] * (len(ids) - len(row)) + row
        assert seen == [0] * (len(ids) - len(row)) + [1] * len(row)


def test_stories260k_writes_its_golden_text(shared_data):
    from llama_adapter.models import BaseModelConfig, load_base, load_tokenizer

    folder = shared_data / "models" / "stories260k-hf"
    config = BaseModelConfig(name_or_path=str(folder))
    generator = Generator(load_base(config), load_tokenizer(config), "plain")
    pieces = []
    answer = generator.stream([Turn("user", "")], SamplingConfig(max_new_tokens=200), pieces.append)
    assert answer == "".join(pieces) == (folder / "expected_greedy_200.txt").read_text()
