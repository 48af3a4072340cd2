"""What a cache of the frozen lower layers is said to save."""

import pytest
from peft import LoraConfig, get_peft_model

from llama_adapter.planning.lower_layers import DISK_BYTES_PER_SECOND, lower_layers
from tests.tiny import tiny_llama


def adapted(layers):
    base = tiny_llama(num_hidden_layers=4).requires_grad_(False)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], layers_to_transform=layers)
    return get_peft_model(base, config).to("meta")


def test_layers_below_the_first_adapter_are_counted_with_their_weights():
    found = lower_layers(adapted([2, 3]), tokens=1000, flops_per_second=1e6, bytes_per_value=2)
    assert found.layers == 2
    assert found.saving.bytes_on_disk == 1000 * 32 * 2
    weights = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 48 + 2 * 32)
    seconds = 2 * weights * 1000 / 1e6 - found.saving.bytes_on_disk / DISK_BYTES_PER_SECOND
    assert found.saving.seconds_per_epoch == pytest.approx(seconds)


def test_nothing_lies_below_an_adapter_in_every_layer():
    assert lower_layers(adapted([0, 3]), tokens=10, flops_per_second=1.0, bytes_per_value=4) is None
