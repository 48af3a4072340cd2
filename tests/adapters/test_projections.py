import pytest
import torch
from torch import nn
from transformers import Olmo2Config, Olmo2Model, Phi3Config, Phi3Model, Qwen3Config, Qwen3Model

from llama_adapter import UserError
from llama_adapter.adapters.projections import AttentionShape, attention_shape, project_prompts
from tests.adapters import tiny

SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def first_attention(model_class, config_class, **options):
    return model_class(config_class(**{**SMALL, **options})).layers[0].self_attn


def test_sizes_come_from_the_module():
    layer = tiny.llama(head_dim=8).model.layers[0].self_attn
    assert attention_shape(layer) == AttentionShape(hidden_size=64, num_heads=4, head_size=8)


def test_plain_projections():
    layer = tiny.llama().model.layers[0].self_attn
    prompts = torch.randn(1, 5, 64)
    keys, values = project_prompts(layer, prompts, 16)
    assert keys.shape == values.shape == (1, 2, 5, 16)
    torch.testing.assert_close(keys, layer.k_proj(prompts).view(1, 5, 2, 16).transpose(1, 2))


def test_fused_projections_are_split_as_the_model_splits_them():
    layer = first_attention(Phi3Model, Phi3Config)
    prompts = torch.randn(1, 5, 64)
    keys, values = project_prompts(layer, prompts, 16)
    fused = layer.qkv_proj(prompts)
    torch.testing.assert_close(keys, fused[..., 64:96].view(1, 5, 2, 16).transpose(1, 2))
    torch.testing.assert_close(values, fused[..., 96:].view(1, 5, 2, 16).transpose(1, 2))


def test_key_norm_per_head_and_over_all_heads():
    prompts = torch.randn(1, 5, 64)
    qwen = first_attention(Qwen3Model, Qwen3Config, head_dim=16)
    nn.init.normal_(qwen.k_norm.weight)
    want = qwen.k_norm(qwen.k_proj(prompts).view(1, 5, 2, 16)).transpose(1, 2)
    torch.testing.assert_close(project_prompts(qwen, prompts, 16)[0], want)
    olmo = first_attention(Olmo2Model, Olmo2Config)
    nn.init.normal_(olmo.k_norm.weight)
    want = olmo.k_norm(olmo.k_proj(prompts)).view(1, 5, 2, 16).transpose(1, 2)
    torch.testing.assert_close(project_prompts(olmo, prompts, 16)[0], want)


class Odd(nn.Module):
    head_dim, num_heads = 8, 2

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


@pytest.mark.parametrize(
    ("children", "message"),
    [
        (
            {"wqkv": nn.Linear(16, 48)},
            r"Odd has none of the known key/value projections.*Use prompt_length=0",
        ),
        (
            {"k_proj": nn.Linear(16, 16), "v_proj": nn.Linear(16, 16), "k_layernorm": nn.LayerNorm(8)},
            r"Odd normalises its keys by 'k_layernorm', which prompts do not know\. Use prompt_length=0",
        ),
        (
            {"k_proj": nn.Identity(), "v_proj": nn.Identity()},
            r"Odd does not say its head size and number of heads\. Use prompt_length=0",
        ),
    ],
)
def test_unknown_builds_are_refused(children, message):
    with pytest.raises(UserError, match=message):
        attention_shape(Odd(**children))
