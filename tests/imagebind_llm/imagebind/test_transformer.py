"""Attention and blocks against torch's own."""

import pytest
import torch
from torch import nn

from imagebind_llm.imagebind.config import TowerConfig
from imagebind_llm.imagebind.transformer import Attention, Block, Transformer


@pytest.mark.parametrize(("extra", "causal"), [(False, False), (True, False), (False, True)])
def test_attention_is_that_of_torch(extra, causal):
    config = TowerConfig(hidden_size=12, num_layers=1, num_heads=3, extra_key_value=extra, causal=causal)
    ours, theirs = Attention(config), nn.MultiheadAttention(12, 3, add_bias_kv=extra, batch_first=True)
    with torch.no_grad():
        ours.qkv.weight.copy_(theirs.in_proj_weight)
        ours.qkv.bias.copy_(theirs.in_proj_bias.normal_())
        ours.out.load_state_dict(theirs.out_proj.state_dict())
        if extra:
            ours.extra_key.copy_(theirs.bias_k.flatten())
            ours.extra_value.copy_(theirs.bias_v.flatten())
    tokens = torch.randn(2, 5, 12)
    mask = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    wanted, _ = theirs(tokens, tokens, tokens, attn_mask=mask)
    torch.testing.assert_close(ours(tokens), wanted, atol=1e-6, rtol=1e-5)


def test_skipped_branches_keep_the_mean():
    block = Block(TowerConfig(hidden_size=8, num_layers=1, num_heads=2), drop_path=0.5)
    branch = torch.ones(4000, 1, 8)
    kept = block.train()._dropped(branch)
    assert set(kept[:, 0, 0].tolist()) == {0.0, 2.0}
    assert kept.mean().sub(1).abs() < 0.1
    assert block.eval()._dropped(branch) is branch


def test_the_chance_rises_from_block_to_block():
    stack = Transformer(TowerConfig(hidden_size=8, num_layers=3, num_heads=2, drop_path=0.6))
    assert [layer.drop_path for layer in stack.layers] == [0.0, 0.3, 0.6]


def test_a_position_enters_every_block():
    stack = Transformer(TowerConfig(hidden_size=8, num_layers=2, num_heads=2)).eval()
    tokens, position = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    first, second = stack.layers
    torch.testing.assert_close(stack(tokens, position), second(first(tokens + position) + position))
