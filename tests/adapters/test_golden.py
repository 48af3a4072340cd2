"""The adapters compute what the original code computed: logits, loss and gradients."""

import pytest
import torch

from tests.adapters import official

CASES = [("v1", False), ("v2_chat_prompts", True)]


def shifted_loss(model, tensors):
    """Loss over labelled positions; label 0 means none, in the official data."""
    logits = model(tensors["golden.inputs.tokens"]).logits
    labels = tensors["golden.inputs.labels"][:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, ignore_index=0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize(("case", "chat"), CASES)
def test_logits_loss_and_gradients_equal_the_original(case, chat, implementation):
    tensors = official.load(case)
    model = official.adapted_model(tensors, chat)
    model.set_attn_implementation(implementation)
    logits = model(tensors["golden.inputs.tokens"]).logits
    torch.testing.assert_close(logits, tensors["golden.outputs.logits"], atol=5e-5, rtol=0)
    loss = shifted_loss(model, tensors)
    torch.testing.assert_close(loss, tensors["golden.outputs.loss"], atol=1e-5, rtol=0)
    loss.backward()
    parameters = dict(model.named_parameters())
    for ours, theirs, convert in official.adapter_parameters(tensors, chat):
        want = convert(tensors[f"golden.grads.{theirs}"])
        torch.testing.assert_close(parameters[ours].grad, want, atol=1e-4 * float(want.abs().max()), rtol=0)


def test_raw_gate_equals_the_released_v1_inference_code():
    tensors = official.load("v1")
    model = official.adapted_model(tensors, chat=False, gate_activation="identity")
    logits = model(tensors["golden.inputs.tokens"]).logits
    torch.testing.assert_close(logits, tensors["golden.outputs.infer.logits_raw_gate"], atol=5e-5, rtol=0)


def test_zero_gates_give_the_base_and_its_gate_gradients():
    tensors = official.load("v1")
    model = official.adapted_model(tensors, chat=False)
    gates = {name: p for name, p in model.named_parameters() if "zero_init_gate" in name}
    with torch.no_grad():
        for gate in gates.values():
            gate.zero_()
    logits = model(tensors["golden.inputs.tokens"]).logits
    torch.testing.assert_close(logits, tensors["golden.outputs.logits_gate_zero"], atol=5e-5, rtol=0)
    shifted_loss(model, tensors).backward()
    for layer in range(1, 4):
        want = tensors[f"golden.outputs.gate_zero.grads.layers.{layer}.attention.gate"][0]
        got = next(p.grad for name, p in gates.items() if f"layers.{layer}." in name)
        torch.testing.assert_close(got, want, atol=1e-4 * float(want.abs().max()), rtol=0)
    prompts = [p for name, p in model.named_parameters() if "zero_init_prompt" in name]
    assert all(float(p.grad.abs().max()) == 0 for p in prompts)
