"""Bases that other tools hold already: accelerate's offload, torch.compile, DDP, a LoRA."""

from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from llama_adapter import ZeroInitConfig

PRESETS = ["v1", "v2", "v21", "chat"]
ZERO = {"task_type": "CAUSAL_LM"}


def train(model, ids, steps=6):
    """A few steps of Adam; returns first and last loss."""
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses[0], losses[-1]


def split(model, tmp_path, first, second):
    """Half of the layers in one place, half in another."""
    return dispatch_model(
        model,
        device_map={
            "model.embed_tokens": "cpu",
            "model.layers.0": first,
            "model.layers.1": second,
            "model.layers.2": "cpu",
            "model.norm": second,
            "model.rotary_emb": "cpu",
            "lm_head": "cpu",
        },
        main_device="cpu",
        offload_dir=tmp_path / "offload",
    )


def load_with_map(model, tmp_path, device_map):
    model.save_pretrained(tmp_path / "base")
    return AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", device_map=device_map, offload_folder=tmp_path / "offload"
    )


WRAPPERS = {
    "dispatch_model, one device": lambda model, tmp: dispatch_model(model, {"": "cpu"}, force_hooks=True),
    "dispatch_model, cpu and disk": lambda model, tmp: split(model, tmp, "cpu", "disk"),
    "cpu_offload": lambda model, tmp: cpu_offload(model, torch.device("cpu")),
    "disk_offload": lambda model, tmp: disk_offload(model, tmp / "offload", torch.device("cpu")),
    "device_map, one device": lambda model, tmp: load_with_map(model, tmp, "cpu"),
    "device_map, cpu and disk": lambda model, tmp: load_with_map(
        model,
        tmp,
        {
            "model.embed_tokens": "cpu",
            "model.layers.0": "cpu",
            "model.layers.1": "disk",
            "model.layers.2": "cpu",
            "model.norm": "disk",
            "model.rotary_emb": "cpu",
            "lm_head": "cpu",
        },
    ),
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", WRAPPERS)
def test_dispatched_and_offloaded_bases(name, preset, tiny_llama, tmp_path, ids, logits, stir):
    plain = get_peft_model(tiny_llama(num_hidden_layers=3), ZeroInitConfig(**ZERO, preset=preset)).eval()
    base = WRAPPERS[name](tiny_llama(num_hidden_layers=3), tmp_path).eval()
    before = logits(base, ids)
    model = get_peft_model(base, ZeroInitConfig(**ZERO, preset=preset)).eval()
    assert torch.equal(logits(model, ids), before)
    adapter = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert adapter
    assert {p.device.type for p in adapter.values()} == {"cpu"}
    assert {p.dtype for p in adapter.values()} == {torch.float32}

    stir(plain), stir(model)
    assert torch.equal(logits(model, ids), logits(plain, ids))
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(tiny_llama(num_hidden_layers=3), tmp_path / "adapter")
    assert torch.equal(logits(again, ids), logits(plain, ids))
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), before)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["dispatch_model, cpu and disk", "cpu_offload"])
def test_offloaded_bases_train(name, preset, tiny_llama, tmp_path, ids):
    base = WRAPPERS[name](tiny_llama(num_hidden_layers=3), tmp_path)
    model = get_peft_model(base, ZeroInitConfig(**ZERO, preset=preset))
    first, last = train(model, ids)
    assert last < first


@pytest.mark.parametrize("name", ["dispatch_model, cpu and disk", "disk_offload"])
def test_loading_onto_an_offloaded_base(name, tiny_llama, tmp_path, ids, logits, stir):
    plain = stir(get_peft_model(tiny_llama(num_hidden_layers=3), ZeroInitConfig(**ZERO, preset="v2"))).eval()
    plain.save_pretrained(tmp_path / "adapter")
    base = WRAPPERS[name](tiny_llama(num_hidden_layers=3), tmp_path)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.equal(logits(model, ids), logits(plain, ids))


def test_compiled_base(run_python):
    """In a process of its own: the type checks of this one wrap every function, which dynamo cannot trace."""
    run_python(Path(__file__).parent / "compiled.py")


def test_ddp_holds_an_adapted_model(tiny_llama, ids, tmp_path):
    """DDP around the adapter, and an adapter in what DDP holds."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        alone = get_peft_model(tiny_llama(), ZeroInitConfig(**ZERO, preset="v2"))
        torch.manual_seed(3)
        wrapped = nn.parallel.DistributedDataParallel(
            get_peft_model(tiny_llama(), ZeroInitConfig(**ZERO, preset="v2"))
        )
        wrapped.module.load_state_dict(alone.state_dict())
        assert train(wrapped, ids) == train(alone, ids)
    finally:
        torch.distributed.destroy_process_group()


# PEFT warns about any adapter it finds in a model to adapt, which is what this test is about.
@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time:UserWarning")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute in the model:UserWarning")
def test_base_that_carries_a_lora(tiny_llama, ids, logits, stir, tmp_path):
    """A LoRA in the base is part of the base: frozen, never off, not saved, still there after unload."""

    def make_base():
        torch.manual_seed(4)
        lora = LoraConfig(
            task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False
        )
        return get_peft_model(tiny_llama(), lora).eval().get_base_model()

    before = logits(make_base(), ids)
    model = get_peft_model(make_base(), ZeroInitConfig(**ZERO, preset="v2")).eval()
    assert torch.equal(logits(model, ids), before)
    assert all("zero_init_" in n for n, p in model.named_parameters() if p.requires_grad)
    stir(model)
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), before)
    first, last = train(model, ids)
    assert last < first

    trained = logits(model, ids)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_base(), tmp_path).eval()
    assert torch.equal(logits(again, ids), trained)
    assert torch.equal(logits(model.unload(), ids), before)
