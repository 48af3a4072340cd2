"""Any number of tensor-parallel files, as LLaMA2-Accessory splits them."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, MixtralConfig

from llama_adapter.checkpoints.accessory import accessory_layout
from llama_adapter.checkpoints.meta_llama import dense_tensors
from llama_adapter.checkpoints.mixtral import mixtral_tensors
from llama_adapter.checkpoints.shards import split
from llama_adapter.checkpoints.stored import StackedExperts
from llama_adapter.errors import UserError
from tests.adapters.official import GOLDEN

SIZES = {"hidden_size": 16, "intermediate_size": 48, "vocab_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
MOE = MixtralConfig(**SIZES, **HEADS, num_local_experts=4)


def test_two_files_share_a_llama_as_the_original_splits_it():
    golden = load_file(GOLDEN / "sphinx_checkpoint_shards.safetensors")
    stored = dense_tensors(LlamaConfig(**SIZES, **HEADS))
    layout = accessory_layout(stored, 2)
    assert layout["files"] == ["consolidated.00-of-02.model.pth", "consolidated.01-of-02.model.pth"]
    assert layout["holders"] == {}
    for one in stored:
        shares = split(golden[f"full/llma.{one.name}"], layout["axes"].get(one.name), 2)
        for index, share in enumerate(shares):
            assert torch.equal(share, golden[f"shard{index}/llma.{one.name}"]), one.name


def test_stacked_experts_are_split_inside_each_expert():
    golden = load_file(GOLDEN / "sphinx_checkpoint_shards.safetensors")
    full, layout = golden["moe_sparse/full"], StackedExperts(4, transposed=False)
    for index in range(2):
        shares = [split(layout.cut(full, expert), 0, 2)[index] for expert in range(4)]
        assert torch.equal(layout.paste(shares), golden[f"moe_sparse/shard{index}"])
    axes = accessory_layout(mixtral_tensors(MOE, ["layers.0.feed_forward.w1"]), 2)["axes"]
    assert [axes[f"layers.0.feed_forward.{name}"] for name in ("w1", "w2", "w3")] == [0, 0, 0]
    assert "layers.0.feed_forward.gate.weight" not in axes


def test_experts_with_tensors_of_their_own_are_dealt_out():
    holders = accessory_layout(mixtral_tensors(MOE, []), 2)["holders"]
    held = [holders[f"layers.1.feed_forward.experts.{expert}.w2.weight"] for expert in range(4)]
    assert held == [[0], [0], [1], [1]]


@pytest.mark.parametrize(
    ("stored", "count", "message"),
    [
        (dense_tensors(LlamaConfig(**SIZES, **HEADS)), 4, r"4 files cannot share 'layers\.0.*wk.*': 2 parts"),
        (dense_tensors(LlamaConfig(**SIZES, **HEADS)), 3, "3 files cannot share 'tok_emb.*': 16 parts"),
        (mixtral_tensors(MOE, []), 3, "3 files cannot share the experts of a layer: 4 parts"),
    ],
)
def test_refuses_numbers_that_do_not_divide(stored, count, message):
    with pytest.raises(UserError, match=message):
        accessory_layout(stored, count)
