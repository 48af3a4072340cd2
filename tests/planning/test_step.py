"""What is counted without values equals what a real step takes."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from llama_adapter.planning.step import measure_step, optimizer_bytes
from tests.tiny import tiny_llama

ROWS, LENGTH = 2, 12


def adapted(device="cpu", attention="eager", **changes):
    model = tiny_llama(attn_implementation=attention, **changes)
    model.requires_grad_(False)
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).to(device)


def real_step(model):
    """FLOPs and saved bytes of a step with real tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    saved = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    input_ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    mask = torch.zeros(1, 1, LENGTH, LENGTH).expand(ROWS, -1, -1, -1)
    with saved_tensors_hooks(note, lambda tensor: tensor), FlopCounterMode(display=False) as forward:
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), input_ids[:, 1:].flatten())
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops(), sum(saved.values())


def test_flops_saved_bytes_and_gradients_equal_a_real_step():
    real = adapted().train()
    forward, backward, saved = real_step(real)
    cost = measure_step(adapted("meta"), ROWS, LENGTH)
    assert (cost.forward_flops, cost.backward_flops) == (forward, backward)
    assert cost.saved_bytes == pytest.approx(saved, rel=0.02)  # a few index tensors differ
    trainable = [parameter for parameter in real.parameters() if parameter.requires_grad]
    assert cost.gradient_bytes == sum(parameter.grad.nbytes for parameter in trainable)


def test_fused_attention_keeps_no_scores_and_computes_the_same():
    fused, eager = (measure_step(adapted("meta", name), ROWS, 64) for name in ("sdpa", "eager"))
    assert fused.forward_flops == eager.forward_flops
    one_score_matrix = ROWS * 4 * 64 * 64 * 4
    assert fused.saved_bytes < eager.saved_bytes - one_score_matrix


def test_forward_is_two_flops_per_weight_and_token_plus_attention():
    model = adapted("meta")
    linear = sum(
        p.numel() for name, p in model.named_parameters() if "norm" not in name and "embed" not in name
    )
    attention = 2 * 2 * (2 * LENGTH * 32)  # layers, two products, query x key x hidden size
    cost = measure_step(model, 1, LENGTH)
    assert cost.forward_flops == LENGTH * (2 * linear + attention)


def test_cost_grows_with_rows():
    one, three = (measure_step(adapted("meta"), rows, LENGTH) for rows in (1, 3))
    assert three.forward_flops == 3 * one.forward_flops
    assert three.gradient_bytes == one.gradient_bytes
    assert three.saved_bytes > 2 * one.saved_bytes


def test_frozen_layers_below_the_first_adapter_save_nothing():
    def saved(layers):
        model = tiny_llama(num_hidden_layers=4, attn_implementation="eager")
        model.requires_grad_(False)
        lora = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=layers)
        return measure_step(get_peft_model(model, lora).to("meta"), 1, LENGTH).saved_bytes

    assert saved([3]) < saved([1]) < saved([0])


@pytest.mark.parametrize(
    ("kind", "states"), [(torch.optim.AdamW, 2), (torch.optim.SGD, 0), (torch.optim.Adagrad, 1)]
)
def test_optimizer_state_equals_the_real_one(kind, states):
    model = adapted("meta")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    measure_step(model, 1, LENGTH)
    found = optimizer_bytes(kind(trainable, lr=1e-3))
    elements = sum(parameter.numel() for parameter in trainable)
    assert 0 <= found - 4 * states * elements <= 4 * len(trainable)  # a step counter each


def test_nothing_happens_to_the_weights_of_a_copy():
    model = adapted("meta")
    before = copy.deepcopy({name: parameter.shape for name, parameter in model.named_parameters()})
    measure_step(model, 1, LENGTH)
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == before
