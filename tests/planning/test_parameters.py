"""Every parameter in exactly one part."""

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config

from llama_adapter.planning.parameters import count_parts, part_of
from tests.tiny import tiny_llama


def test_parts_add_up_and_tied_weights_count_once():
    for tied in (False, True):
        model = tiny_llama(tie_word_embeddings=tied)
        model.requires_grad_(False)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        parts = {part.part: part for part in count_parts(adapted)}
        trainable, total = adapted.get_nb_trainable_parameters()
        assert sum(part.trainable for part in parts.values()) == trainable
        assert sum(part.frozen + part.trainable for part in parts.values()) == total
        assert sum(part.num_bytes for part in parts.values()) == 4 * total
        assert parts["adapter: lora_A"].trainable == 2 * 2 * 4 * 32
        assert parts["embeddings"].frozen == 259 * 32
        assert ("output head" in parts) is not tied
        assert list(parts)[-2:] == ["adapter: lora_A", "adapter: lora_B"]


def test_norms_are_norms_wherever_they_stand():
    model = tiny_llama()
    parts = {part.part: part for part in count_parts(model)}
    assert parts["norms"].trainable == 5 * 32
    assert set(parts) == {"embeddings", "attention", "MLP", "norms", "output head"}


def test_another_family_is_recognised_too():
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=16)
    parts = {part.part for part in count_parts(AutoModelForCausalLM.from_config(config))}
    assert parts == {"embeddings", "attention", "MLP", "norms"}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "adapter: lora_A"),
        ("model.layers.2.self_attn.prompt_attention.zero_init_gate.default", "adapter: gate"),
        ("model.layers.2.self_attn.q_proj.zero_init_bias.default.value", "adapter: bias"),
        ("model.layers.2.self_attn.q_proj.base_layer.weight", "attention"),
        ("something.weight", "other"),
        ("default.weight", "other"),
    ],
)
def test_part_of_a_path(name, part):
    assert part_of(name, {"default"}) == part
