"""Which tensors decay, and that they really do."""

import pytest
import torch
from torch import nn

from llama_adapter.training.decay import decay_summary, published_decay_names

SHAPES = {
    "layers.0.zero_init_prompt.default": (10, 16),
    "layers.0.zero_init_gate.default": (4, 1, 1),
    "layers.0.zero_init_new_gate.default": (1, 1, 1),
    "layers.0.q_proj.zero_init_bias.default.value": (16,),
    "layers.0.q_proj.zero_init_output_scale.default.value": (16,),
    "layers.0.q_proj.zero_init_lora.default.down": (4, 16),
    "layers.0.norm.zero_init_norm.default.weight": (16,),
    "layers.0.conv.bias": (4, 4),
}


@pytest.fixture
def parameters():
    return [(name, nn.Parameter(torch.zeros(shape))) for name, shape in SHAPES.items()]


def test_matrices_and_gates_decay_and_biases_scales_and_norms_do_not(parameters):
    assert published_decay_names(parameters) == [
        "layers.0.zero_init_prompt.default",
        "layers.0.zero_init_gate.default",
        "layers.0.zero_init_new_gate.default",
        "layers.0.q_proj.zero_init_lora.default.down",
    ]


def test_summary_names_kinds_and_counts(parameters):
    text = decay_summary(parameters, published_decay_names(parameters))
    assert text == (
        "decay: 4 tensors (down, zero_init_gate, zero_init_new_gate, zero_init_prompt); "
        "none: 4 tensors (bias, zero_init_bias, zero_init_norm, zero_init_output_scale)"
    )


def test_frozen_tensors_are_not_counted(parameters):
    for _, parameter in parameters:
        parameter.requires_grad_(False)
    assert decay_summary(parameters, published_decay_names(parameters)) == "decay: 0 tensors; none: 0 tensors"


@pytest.mark.parametrize("rule", ["published", "transformers"])
def test_the_optimizer_has_the_groups_of_the_rule(trainer, rule):
    made = trainer(weight_decay=0.3, weight_decay_rule=rule)
    optimizer = made.create_optimizer()
    decayed = {
        id(parameter)
        for group in optimizer.param_groups
        if group["weight_decay"]
        for parameter in group["params"]
    }
    named = set(made.get_decay_parameter_names(made.model))
    trainable = [
        (name, parameter) for name, parameter in made.model.named_parameters() if parameter.requires_grad
    ]
    assert {name for name, parameter in trainable if id(parameter) in decayed} == {
        n for n, _ in trainable if n in named
    }
    assert decayed


def test_a_decayed_tensor_shrinks_without_a_gradient(trainer, records):
    rows = [{**row, "labels": [-100] * len(row["labels"])} for row in records(4)]  # no loss at all
    made = trainer(train=rows, max_steps=1, weight_decay=0.5, lr_scheduler_type="constant")
    name, parameter = next((n, p) for n, p in made.model.named_parameters() if p.requires_grad)
    before = parameter.detach().clone()
    made.train()
    assert name in made.get_decay_parameter_names(made.model)
    torch.testing.assert_close(parameter.detach(), before * (1 - 0.5 * 1e-2))
