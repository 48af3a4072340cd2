"""V2's visual part beside what the original code computed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_adapter.conditioning import VisualQueries, VisualQueriesConfig
from tests.checkpoints.golden_cases import load

CASES = ["v2_multimodal_bias", "v21_lora_bias"]


def of_golden(golden):
    visual = {name: t for name, t in golden.items() if name.startswith(("clip_proj", "visual_"))}
    conditioner = VisualQueries(VisualQueriesConfig.of_tensors(visual, num_heads=4))
    conditioner.load_state_dict(visual)
    return conditioner


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_blocks_and_output_equal_the_original(case):
    golden = load(case)
    conditioner, blocks = of_golden(golden), []
    for block in conditioner.visual_blocks:
        block.register_forward_hook(lambda module, inputs, output: blocks.append(output))
    added = conditioner(golden["golden.inputs.clip_tokens"])
    torch.testing.assert_close(added, golden["golden.outputs.visual_query"], atol=1e-5, rtol=0)
    assert len(blocks) == 2
    for index, output in enumerate(blocks):
        wanted = golden[f"golden.outputs.visual_block.{index}"]
        torch.testing.assert_close(output, wanted, atol=1e-5, rtol=0)


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_padded_tokens_are_not_seen(lengths):
    """Records of different lengths in one batch; nothing is known of what stands beyond their ends."""
    torch.manual_seed(0)
    conditioner = VisualQueries(
        VisualQueriesConfig(
            hidden_size=8, feature_width=4, num_queries=2, width=8, depth=2, num_heads=2, mlp_width=8
        )
    )
    features = torch.randn(len(lengths), 6, 4) * 10
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    together = conditioner(features, mask)
    for index, length in enumerate(lengths):
        alone = conditioner(features[index : index + 1, :length])
        torch.testing.assert_close(together[index], alone[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_record_without_tokens_is_finite():
    conditioner = of_golden(load("v2_multimodal_bias"))
    mask = torch.tensor([[False] * 7, [True] * 7])
    assert conditioner(torch.zeros(2, 7, 32), mask).isfinite().all()


def test_the_defaults_are_the_published_models():
    """61,731,584 values train in the first phase: the visual part, 31 x 10 prompts and 32 x 32 gates."""
    with torch.device("meta"):
        conditioner = VisualQueries(VisualQueriesConfig(hidden_size=4096))
    visual = sum(parameter.numel() for parameter in conditioner.parameters())
    assert visual + 31 * 10 * 4096 + 32 * 32 == 61_731_584
    assert VisualQueriesConfig.of_tensors(conditioner.state_dict()) == conditioner.config
