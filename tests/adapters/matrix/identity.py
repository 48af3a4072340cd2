"""Checks of what an adapter computes: nothing while it is new, exactly the formula once it is trained."""

import inspect

import pytest
import torch
from torch import Tensor, nn

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters.layer import value_of
from llama_adapter.adapters.prompts import PromptLayer
from llama_adapter.attention import Memory
from tests.adapters.matrix.subjects import (
    Subject,
    attach,
    attention_function,
    disturb,
    relative_error,
    trainable,
)
from tests.adapters.matrix.tiny_models import output


@torch.no_grad()
def new_adapter_changes_nothing(subject: Subject) -> None:
    for implementation in subject.implementations:
        inputs = subject.inputs()
        wanted = output(subject.base(implementation), inputs)
        for config in (subject.prompts(), subject.everything()):
            new = subject.adapt(config, implementation, noise=0)
            assert torch.equal(output(new, inputs), wanted)


@torch.no_grad()
def every_gate_changes_the_output(subject: Subject) -> None:
    inputs = subject.inputs()
    wanted = output(subject.base(), inputs)
    model = subject.adapt(subject.prompts(prompt_layers=1), noise=0)
    (gate,) = (tensor for name, tensor in trainable(model).items() if "gate" in name)
    effects = []
    for head in range(len(gate)):
        gate.zero_()
        gate[head] = 0.5
        effects.append(output(model, inputs) - wanted)
    assert len(effects) == 4
    assert all(effect.abs().max() > 1e-3 * wanted.abs().max() for effect in effects)
    assert not any(torch.allclose(a, b) for i, a in enumerate(effects) for b in effects[:i])


@torch.no_grad()
def prompts_follow_the_formula(subject: Subject) -> None:
    """Per query head: tanh(gate) softmax(q k / sqrt(D)) v, keys and values as the module makes them."""
    model = subject.adapt(subject.prompts(prompt_layers=1), noise=0.3)
    (branch,) = (module for module in model.modules() if isinstance(module, PromptLayer))
    calls = _record_attend(branch)
    output(model, subject.inputs())
    attention, query, scaling, softcap, got = calls[0]
    keys, values = _keys_and_values(
        model.base_model.model, attention, value_of("default", branch.zero_init_prompt)
    )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    per_group = query.shape[1] // keys.shape[0]
    for head in range(query.shape[1]):
        scores = query[:, head] @ keys[head // per_group].T * scale
        scores = softcap * (scores / softcap).tanh() if softcap else scores
        gate = value_of("default", branch.zero_init_gate)[head].tanh()
        wanted = gate * (scores.softmax(-1) @ values[head // per_group])
        torch.testing.assert_close(got[:, :, head], wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def two_adapters_add_up(subject: Subject) -> None:
    """In the one adapted layer: effect of both adapters == effect of one + effect of the other."""
    config = subject.prompts(prompt_layers=1)
    model = subject.adapt(config, noise=0)
    model.add_adapter("second", subject.prompts(prompt_layers=1, prompt_length=5))
    (branch,) = (module for module in model.modules() if isinstance(module, PromptLayer))
    for seed, name in enumerate(("default", "second")):
        model.base_model.set_adapter(name)
        disturb(model, seed=seed)
    calls = _record_attend(branch)
    outputs = []
    for names in ("default", "second", ["default", "second"]):
        model.base_model.set_adapter(names)
        outputs.append(output(model, subject.inputs()))
    first, second, both = (call[-1] for call in calls)
    torch.testing.assert_close(both, first + second)
    assert relative_error(first, second) > 0.1
    assert relative_error(outputs[2], outputs[0]) > 1e-3


@torch.no_grad()
def implementations_agree(subject: Subject) -> None:
    results = []
    for implementation in ("eager", "sdpa"):
        results.append(output(subject.adapt(subject.everything(), implementation), subject.inputs()))
    assert relative_error(*results) < 1e-4


@torch.no_grad()
def implementation_may_change_later(subject: Subject) -> None:
    inputs = subject.inputs()
    model = subject.adapt(subject.everything(), "sdpa")
    wanted = output(model, inputs)
    base = output(subject.base(), inputs)
    assert relative_error(wanted, base) > 0.05
    for implementation in ("eager", "sdpa"):
        model.base_model.model.set_attn_implementation(implementation)
        assert relative_error(output(model, inputs), wanted) < 1e-4


@torch.no_grad()
def batch_equals_single_rows(subject: Subject) -> None:
    model = subject.adapt(subject.everything())
    inputs = subject.inputs(rows=3)
    together = output(model, inputs)
    alone = [
        output(model, {name: tensor[row : row + 1] for name, tensor in inputs.items()}) for row in range(3)
    ]
    assert relative_error(torch.cat(alone), together) < 1e-4


def prompts_are_taken_or_refused(subject: Subject) -> None:
    if subject.takes_prompts:
        model = subject.adapt(subject.prompts())
        assert sum(isinstance(module, PromptLayer) for module in model.modules()) == 3
        return
    before = subject.base()
    names = list(before.state_dict())
    reason = subject.family.unsupported["prompts"]
    with pytest.raises(UserError, match=f"(?s){subject.model_type}.*{reason}.*prompt_length=0"):
        attach(before, ZeroInitConfig(prompt_length=3))
    assert list(before.state_dict()) == names  # the error left the model as it was
    assert not before._forward_pre_hooks


@torch.no_grad()
def deltas_alone_change_the_output(subject: Subject) -> None:
    """Every kind of delta, and tuned norms, each on its own."""
    inputs = subject.inputs()
    wanted = output(subject.base(), inputs)
    targets = subject.delta_targets
    for kind in ("bias", "output_scale", "input_scale", "lora"):
        model = subject.adapt(subject.deltas_only([{"kind": kind, "targets": targets}]))
        assert relative_error(output(model, inputs), wanted) > 1e-3
    model = subject.adapt(subject.deltas_only([], norms=True))
    assert relative_error(output(model, inputs), wanted) > 1e-3


def _record_attend(branch: PromptLayer) -> list[tuple]:
    calls: list[tuple] = []
    attend = branch.attend

    def recording(
        attention: nn.Module,
        query: Tensor,
        scaling: float | None,
        softcap: float | None,
        memory: Memory | None,
    ) -> Tensor:
        result = attend(attention, query, scaling, softcap, memory)
        calls.append((attention, query, scaling, softcap, result))
        return result

    branch.attend = recording
    return calls


def _keys_and_values(model: nn.Module, attention: nn.Module, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """What the module makes of the prompts if they are its tokens, unrotated: shapes (G, P, D)."""
    seen = {}

    def recording(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args, **kwargs):
        seen.update(key=key, value=value)
        return query.transpose(1, 2), None

    arguments = {}
    if "position_embeddings" in inspect.signature(type(attention).forward).parameters:
        size = attention.head_dim
        arguments["position_embeddings"] = (
            torch.ones(1, len(prompts), size),
            torch.zeros(1, len(prompts), size),
        )
    branch = attention._modules.pop("prompt_attention")
    hooks = dict(attention._forward_hooks)
    attention._forward_hooks.clear()
    try:
        with attention_function(model, "recording", recording):
            attention(prompts[None], attention_mask=None, **arguments)
    finally:
        attention._modules["prompt_attention"] = branch
        attention._forward_hooks.update(hooks)
    return seen["key"][0], seen["value"][0]
