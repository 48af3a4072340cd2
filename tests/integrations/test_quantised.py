"""Quantised bases: the adapter calls the maps it sits on and never reads their weights."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig

PRESETS = ["v1", "v2", "v21", "chat"]


class Int8Linear(nn.Module):
    """A home-made quantised map: int8 codes, no floating weight, and the sizes every such class has."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("codes", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.half())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.codes.to(x.dtype) * self.scale.to(x.dtype))


def quantise_by_hand(model: nn.Module) -> nn.Module:
    """Replaces all linear maps of the layers."""
    for layer in model.model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, Int8Linear(child))
    return model


def load_home_made(folder):
    return quantise_by_hand(AutoModelForCausalLM.from_pretrained(folder))


def load_bitsandbytes(**options):
    def load(folder):
        bitsandbytes = pytest.importorskip(
            "bitsandbytes", reason="bitsandbytes is not installed: pip install bitsandbytes"
        )
        from transformers import BitsAndBytesConfig

        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=BitsAndBytesConfig(**options), device_map="cpu", dtype=torch.float32
        )
        kinds = (bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit)
        assert isinstance(model.model.layers[0].self_attn.k_proj, kinds)
        return model

    return load


def load_torchao(folder):
    pytest.importorskip("torchao", reason="torchao is not installed: pip install torchao")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    quantize_(model.model.layers, Int8WeightOnlyConfig())
    return model


LOADERS = {
    "home-made int8": load_home_made,
    "bitsandbytes int8": load_bitsandbytes(load_in_8bit=True),
    "bitsandbytes nf4": load_bitsandbytes(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    ),
    "torchao int8": load_torchao,
}


@pytest.fixture(params=LOADERS)
def load(request, tiny_llama, tmp_path):
    """Loads the quantised base anew, always the same."""
    wide = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}  # 64: one block of nf4 codes
    tiny_llama(**wide).save_pretrained(tmp_path / "base")
    return lambda: LOADERS[request.param](tmp_path / "base").eval()


@pytest.mark.parametrize("preset", PRESETS)
def test_starts_as_the_base_and_leaves_it_as_it_was(load, preset, ids, logits, stir):
    base = load()
    before = logits(base, ids)
    model = get_peft_model(base, ZeroInitConfig(task_type="CAUSAL_LM", preset=preset)).eval()
    assert torch.equal(logits(model, ids), before)
    assert not torch.equal(logits(stir(model), ids), before)
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), before)
    assert torch.equal(logits(model.unload(), ids), before)


@pytest.mark.parametrize("preset", PRESETS)
def test_learns_saves_and_reloads(load, preset, ids, logits, tmp_path):
    """Trained before any pass without gradients: in one, bitsandbytes 0.50 packs nf4 codes for CPUs that have
    avx512_bf16 into a form through which no gradient passes.
    """
    model = get_peft_model(load(), ZeroInitConfig(task_type="CAUSAL_LM", preset=preset)).train()
    adapter = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert adapter
    assert all("zero_init_" in name and p.dtype == torch.float32 for name, p in adapter.items())
    optimizer = torch.optim.Adam(adapter.values(), lr=2e-2)
    losses = []
    for _ in range(8):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    model.eval().save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load(), tmp_path / "adapter")
    assert torch.equal(logits(again, ids), logits(model, ids))
