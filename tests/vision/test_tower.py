import torch

from llama_adapter.vision.tower import as_tokens, describe, with_prefix


def test_maps_become_tokens_row_by_row():
    values = torch.arange(24.0).view(1, 2, 3, 4)  # channels, rows, columns
    tokens = as_tokens(values)
    assert tokens.shape == (1, 12, 2)
    assert torch.equal(tokens[0, 5], values[0, :, 1, 1])
    assert torch.equal(as_tokens(values.permute(0, 2, 3, 1), channels_last=True), tokens)
    assert torch.equal(as_tokens(tokens), tokens)
    assert torch.equal(as_tokens(values[:, :, 0, 0]), values[:, None, :, 0, 0])


def test_prefix_tokens_stand_first():
    values, prefix = torch.randn(2, 3, 2, 2), torch.randn(2, 1, 3)
    assert torch.equal(with_prefix((values, prefix)), torch.cat([prefix, as_tokens(values)], dim=1))
    assert torch.equal(with_prefix(values), as_tokens(values))


def test_activations_and_heads_are_described():
    def attention(heads, activation):
        return torch.nn.TransformerEncoderLayer(8, heads, 8, activation=activation)

    assert describe(attention(2, torch.nn.GELU())) == describe(attention(2, torch.nn.GELU()))
    assert describe(attention(2, torch.nn.GELU())) != describe(attention(4, torch.nn.GELU()))
    assert describe(attention(2, torch.nn.GELU())) != describe(attention(2, torch.nn.ReLU()))
