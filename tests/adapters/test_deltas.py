import pytest
import torch

from llama_adapter import UserError
from llama_adapter.adapters import deltas


@pytest.mark.parametrize("kind", sorted(deltas.DELTAS))
def test_every_delta_starts_as_the_identity(kind):
    delta = deltas.DELTAS[kind][1](deltas.parse_delta(kind), 6, 4)
    x, y = torch.randn(3, 6), torch.randn(3, 4)
    assert torch.equal(delta.on_input(x), x)
    assert torch.equal(delta.on_output(y, x), y)


def test_lora_has_no_alpha_over_rank_factor():
    lora = deltas.Lora(deltas.LoraConfig(rank=2), 6, 4)
    torch.nn.init.normal_(lora.up)
    x, y = torch.randn(3, 6), torch.randn(3, 4)
    torch.testing.assert_close(lora.on_output(y, x), y + x @ lora.down.T @ lora.up.T)


def test_a_delta_is_written_as_kind_mapping_or_config():
    config = deltas.LoraConfig(rank=3, exclude=["q_proj"])
    assert deltas.parse_delta("lora") == deltas.LoraConfig()
    assert deltas.parse_delta({"kind": "lora", "rank": 3, "exclude": ["q_proj"]}) == config
    assert deltas.parse_delta(config) is config


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("dora", r"Unknown delta 'dora'\. Use one of \['bias', 'input_scale', 'lora', 'output_scale'\]"),
        ({"rank": 3}, r"Unknown delta None\. Use one of"),
        ({"kind": "bias", "rank": 3}, r"'bias' delta does not take \['rank'\]\. Use only"),
        ({"kind": "lora", "rank": 0}, r"rank=0 of the lora delta is too small\. Set it to at least 1"),
    ],
)
def test_wrong_deltas_are_named(value, message):
    with pytest.raises(UserError, match=message):
        deltas.parse_delta(value)


def test_a_new_delta_needs_one_registration(monkeypatch):
    monkeypatch.setattr(deltas, "DELTAS", dict(deltas.DELTAS))

    @deltas.register_delta("negate", deltas.DeltaConfig)
    class Negate(deltas.Delta):
        pass

    assert deltas.parse_delta("negate").kind == "negate"
