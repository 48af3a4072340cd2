import warnings

import pytest
import torch
from peft import PeftModel, get_peft_model

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters import prompt_context
from tests.adapters import tiny


def saved_bytes(model):
    """Bytes that autograd keeps between forward and backward, parameters aside."""
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tiny.ids(), labels=tiny.ids()).loss
    loss.backward()
    return sum(kept.values())


@pytest.mark.parametrize("preset", ["v1", "v2", "v21", "chat", "imagebind"])
def test_a_fresh_adapter_is_the_base_to_the_bit(preset):
    base = tiny.llama()
    want = base(tiny.ids()).logits
    assert torch.equal(get_peft_model(base, ZeroInitConfig(preset=preset)).eval()(tiny.ids()).logits, want)


@pytest.mark.parametrize("preset", ["v1", "v2", "v21", "chat", "imagebind"])
def test_unloading_gives_the_base_back(preset):
    base = tiny.llama()
    names, want = [name for name, _ in base.named_modules()], base(tiny.ids()).logits
    restored = tiny.adapted(base, preset=preset).unload()
    assert torch.equal(restored(tiny.ids()).logits, want)
    assert [name for name, _ in restored.named_modules()] == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in restored.modules())


@pytest.mark.parametrize("preset", ["v1", "v21", "chat"])
def test_saved_adapters_load_to_the_same_logits(preset, tmp_path):
    model = tiny.adapted(preset=preset)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny.llama(), tmp_path).eval()
    assert torch.equal(loaded(tiny.ids()).logits, model(tiny.ids()).logits)


def test_base_weights_are_not_renamed_by_prompts():
    base = tiny.llama()
    names = {f"base_model.model.{name}" for name in base.state_dict()}
    assert names < set(get_peft_model(base, ZeroInitConfig()).state_dict())


def test_a_wrong_config_leaves_the_model_untouched():
    base = tiny.llama()
    with pytest.raises(UserError, match="prompt_layers=9 does not fit"):
        get_peft_model(base, ZeroInitConfig(preset="v2", prompt_layers=9))
    assert not any("zero_init" in name for name, _ in base.named_parameters())


def test_merging_is_refused_with_the_reason():
    model = tiny.adapted(prompt_length=3)
    want = model(tiny.ids()).logits
    with pytest.raises(NotImplementedError, match=r"softmax of their own.*unload"):
        model.merge_and_unload()
    assert torch.equal(model(tiny.ids()).logits, want)


def test_nothing_below_the_first_adapted_layer_is_recorded():
    model = get_peft_model(tiny.llama(num_hidden_layers=8), ZeroInitConfig(prompt_layers=1))
    model.activation_checkpointing_enable()
    inputs = []
    top = model.base_model.model.model.layers[-1]
    top.register_forward_pre_hook(lambda module, args: inputs.append(args[0].requires_grad))
    few = saved_bytes(model)
    every = saved_bytes(get_peft_model(tiny.llama(num_hidden_layers=8), ZeroInitConfig()))
    assert not any(inputs)
    assert few < every / 4


def test_activation_checkpointing_gives_the_same_gradients():
    model = tiny.adapted(preset="v21").train()
    grads = []
    for enable in (False, True):
        if enable:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(tiny.ids(), labels=tiny.ids()).loss.backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*grads, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_reentrant_checkpoints_give_the_same_gradients_and_say_what_they_cost():
    model = tiny.adapted(preset="v21").train()
    model(tiny.ids(), labels=tiny.ids()).loss.backward()
    plain = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    with pytest.warns(UserWarning, match=r"use_reentrant=True, which records every frozen layer"):
        model(tiny.ids(), labels=tiny.ids()).loss.backward()
    for parameter, expected in zip((p for p in model.parameters() if p.requires_grad), plain, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_reentrant_checkpoints_are_refused_where_conditions_want_gradients():
    model = tiny.adapted(prompt_length=3).train()
    model.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    conditions = torch.zeros(2, 1, 64, requires_grad=True)
    message = r"use_reentrant=True, through which conditions lose gradients.*Set activation_checkpointing"
    with prompt_context(model, conditions), pytest.raises(UserError, match=message):
        model(tiny.ids())


def test_another_base_is_noticed(tmp_path):
    tiny.adapted(prompt_length=3).save_pretrained(tmp_path)
    other = tiny.llama()
    with torch.no_grad():
        other.get_input_embeddings().weight.add_(1)
    with pytest.warns(UserWarning, match=r"another base model: the embedding weights differ\. Load it on"):
        PeftModel.from_pretrained(other, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        PeftModel.from_pretrained(tiny.llama().bfloat16(), tmp_path)


def test_the_model_card_tells_the_import(tmp_path):
    model = tiny.adapted(prompt_length=3)
    for _ in range(2):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text().count("import llama_adapter") == 1
