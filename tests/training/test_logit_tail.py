"""The table of what models do to logits, against the models themselves."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    FalconH1Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    LlavaConfig,
    MptConfig,
    RecurrentGemmaConfig,
)

from llama_adapter.training.logit_tail import tail_of

RAMP = torch.linspace(-50, 50, 11)[None]


def test_models_that_leave_logits_alone_have_no_tail():
    assert tail_of(LlamaConfig()) is None
    assert tail_of(None) is None
    assert tail_of(Gemma3TextConfig(final_logit_softcapping=None)) is None
    assert tail_of(MptConfig(logit_scale="inv_sqrt_d_model")) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GraniteConfig(logits_scaling=8.0), RAMP / 8),
        (SimpleNamespace(model_type="hyperclovax", logits_scaling=8.0), RAMP * 8),
        (Gemma3TextConfig(final_logit_softcapping=30.0), 30 * torch.tanh(RAMP / 30)),
        (RecurrentGemmaConfig(logits_soft_cap=20.0), 20 * torch.tanh(RAMP / 20)),
        (FalconH1Config(lm_head_multiplier=0.25), RAMP * 0.25),
        (
            SimpleNamespace(output_multiplier=0.5, final_logit_softcapping=4.0),
            4 * torch.tanh(RAMP * 0.5 / 4),
        ),
        (SimpleNamespace(unpadded_vocab_size=7), RAMP[:, :7]),
        (LlavaConfig(text_config=GraniteConfig(logits_scaling=2.0)), RAMP / 2),
    ],
    ids=lambda value: getattr(value, "model_type", "") if not isinstance(value, torch.Tensor) else "",
)
def test_what_a_configuration_says(config, expected):
    torch.testing.assert_close(tail_of(config)(RAMP), expected)
