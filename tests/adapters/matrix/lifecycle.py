"""Checks of handling adapters: several of them, copies, removal, presets, other bases."""

import copy

import accelerate
import pytest
import torch

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters.families import EXPERTS_3D, NO_INTERFACE
from llama_adapter.adapters.layer import ZeroInitLayer
from tests.adapters.matrix.subjects import Subject, attach, disturb, gradients, relative_error, trainable
from tests.adapters.matrix.tiny_models import output

_MESSAGES = {
    "prompts": f"(?s){NO_INTERFACE}.*prompt_length=0",
    "mlp": f"(?s){EXPERTS_3D}.*targets=\\['attention'\\]",
    "v2": r"(?s)\['k_proj', 'v_proj'\], which these layers do not have\. Use",
}
"""Unsupported part -> what the error says: why, and what works instead."""


@torch.no_grad()
def adapters_add_switch_disable_delete(subject: Subject) -> None:
    inputs = subject.inputs()
    base = output(subject.base(), inputs)
    model = subject.adapt(subject.everything())
    first = output(model, inputs)
    model.add_adapter("second", subject.everything(**({"prompt_length": 5} if subject.takes_prompts else {})))
    assert torch.equal(output(model, inputs), first)
    model.set_adapter("second")
    disturb(model, seed=11)
    second = output(model, inputs)
    assert relative_error(second, first) > 1e-3
    with model.disable_adapter():
        assert torch.equal(output(model, inputs), base)
    model.set_adapter("default")
    assert torch.equal(output(model, inputs), first)
    model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.equal(output(model, inputs), second)
    assert not [name for name, _ in model.named_parameters() if ".default" in name]
    assert model.get_model_status().active_adapters == ["second"]


@torch.no_grad()
def copy_is_independent(subject: Subject) -> None:
    inputs = subject.inputs()
    model = subject.adapt(subject.everything())
    wanted = output(model, inputs)
    twin = copy.deepcopy(model)
    assert torch.equal(output(twin, inputs), wanted)
    disturb(twin, seed=5)
    changed = output(twin, inputs)
    assert relative_error(changed, wanted) > 1e-3
    assert torch.equal(output(model, inputs), wanted)
    for parameter in trainable(model).values():
        parameter.zero_()
    assert torch.equal(output(twin, inputs), changed)


@torch.no_grad()
def unload_restores_the_base(subject: Subject) -> None:
    inputs = subject.inputs()
    base = subject.base()
    model = subject.adapt(subject.everything())
    hooked_before = _hooks(base)
    assert _hooks(model.base_model.model) != hooked_before or not subject.takes_prompts
    restored = model.unload()
    assert torch.equal(output(restored, inputs), output(base, inputs))
    assert list(restored.state_dict()) == list(base.state_dict())
    assert [type(module) for module in restored.modules()] == [type(module) for module in base.modules()]
    assert _hooks(restored) == hooked_before
    again = attach(restored, subject.everything())  # and it can be adapted again
    assert torch.equal(output(again.eval(), inputs), output(base, inputs))


def v1_preset(subject: Subject) -> None:
    _run_preset(subject, "v1", "prompts")


def v2_preset(subject: Subject) -> None:
    _run_preset(subject, "v2", "prompts", "mlp", "v2")


def v21_preset(subject: Subject) -> None:
    _run_preset(subject, "v21", "prompts", "mlp", "v2")


def imagebind_preset(subject: Subject) -> None:
    _run_preset(subject, "imagebind", "prompts", "mlp", "v2")


def chat_preset(subject: Subject) -> None:
    _run_preset(subject, "chat", "mlp")


@torch.no_grad()
def offloaded_base_works(subject: Subject) -> None:
    """A base whose weights accelerate fetches layer by layer, as device_map does with what does not fit."""
    inputs = subject.inputs()
    wanted = output(subject.adapt(subject.everything()), inputs)
    base = subject.base()
    accelerate.cpu_offload(base, execution_device=torch.device("cpu"))
    assert next(base.parameters()).device.type == "meta"
    model = attach(base, subject.everything()).eval()
    assert {parameter.device.type for parameter in trainable(model).values()} == {"cpu"}
    disturb(model)
    assert relative_error(output(model, inputs), wanted) < 1e-4


def _run_preset(subject: Subject, preset: str, *parts: str) -> None:
    missing = [part for part in parts if part in subject.family.unsupported]
    if missing:
        with pytest.raises(UserError, match=_MESSAGES[missing[0]]):
            attach(subject.base(), ZeroInitConfig(preset=preset))
        return
    model = subject.adapt(ZeroInitConfig(preset=preset), noise=0)
    inputs = subject.inputs()
    with torch.no_grad():
        wanted = output(subject.base(), inputs)
        assert torch.equal(output(model, inputs), wanted)
        disturb(model)
        assert relative_error(output(model, inputs), wanted) > 1e-3
    assert all(gradient.isfinite().all() for gradient in gradients(model, inputs).values())


def _hooks(model: torch.nn.Module) -> list[tuple[str, int]]:
    return [
        (name, len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks))
        for name, module in model.named_modules()
        if not isinstance(module, ZeroInitLayer)
        and (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
    ]
