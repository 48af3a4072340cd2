"""A step on tensors without content takes what a real step takes."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import MixtralConfig, MixtralForCausalLM

from llama_adapter import ZeroInitConfig
from llama_adapter.planning.fake_model import to_fake_cpu
from llama_adapter.planning.simulation import POLICIES
from llama_adapter.planning.step import (
    FLOP_FORMULAS,
    Row,
    StepSettings,
    make_batch,
    measure_step,
    training_loss,
)
from llama_adapter.planning.timeline import GRADIENTS, LOGITS, OPTIMIZER, WEIGHTS
from tests.tiny import tiny_llama

PADDED = [Row(24, 12), Row(17, 5)]
EVEN = [Row(24, 12), Row(24, 3)]
ADAPTERS = {
    "v1": lambda: ZeroInitConfig(task_type="CAUSAL_LM", preset="v1", prompt_length=3, prompt_layers=2),
    "v2": lambda: ZeroInitConfig(task_type="CAUSAL_LM", preset="v2", prompt_length=3, prompt_layers=2),
    "lora": lambda: LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"]),
}


def adapted(name="lora", device="cpu", dtype=torch.float32, **changes):
    model = tiny_llama(**changes).to(dtype).requires_grad_(False)
    return get_peft_model(model, ADAPTERS[name]()).to(device)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3)


def both(name="lora", rows=PADDED, dtype=torch.float32, changes=None, **settings):
    """The cost without content, and that of a real step."""
    changes = changes or {}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake = to_fake_cpu(adapted(name, "meta", dtype, **changes), mode)
    settings = StepSettings(optimizer=adamw, max_grad_norm=1.0, **settings)
    return measure_step(fake, rows, settings, mode), measure_step(
        adapted(name, dtype=dtype, **changes), rows, settings
    )


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("rows", [PADDED, EVEN], ids=["padded", "even"])
def test_without_content_equals_real(name, rows):
    fake, real = both(name, rows)
    assert fake == real


def test_keys_and_values_are_kept_only_where_the_trainer_keeps_them():
    fake, real = both("v1", use_cache=True)
    assert fake == real
    assert fake.peak.total > both("v1")[0].peak.total


def test_packed_records():
    fake, real = both("v1", [Row(30, 12, records=3)])
    assert fake == real
    assert fake.peak.total > both("v1", [Row(30, 12)])[0].peak.total, "the mask is there"


@pytest.mark.parametrize("kernel", ["auto", "narrowed"])
@pytest.mark.parametrize("rows", [None, 4])
def test_every_loss(kernel, rows):
    fake, real = both("v1", loss_kernel=kernel, loss_chunk_rows=rows)
    assert fake == real


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_and_kernel(policy, kernel):
    fake, real = both("v1", changes={"attn_implementation": kernel}, checkpointing=policy)
    assert fake == real


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.bfloat16, None), (torch.float32, torch.bfloat16)], ids=["bf16", "autocast"]
)
def test_every_precision(dtype, autocast):
    fake, real = both("v2", dtype=dtype, autocast=autocast)
    assert fake == real


def test_flops_are_those_of_torchs_counter_on_a_real_step():
    fake, _ = both("v1")
    model = adapted("v1").train()
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
        training_loss(model, make_batch(PADDED), StepSettings()).backward()
    assert fake.forward_flops + fake.backward_flops == counter.get_total_flops()


def test_fused_attention_counts_the_products_of_the_spelled_out_one():
    """Its backward pass also computes the scores again, and gradients of keys that nobody asks for."""
    fused, eager = (both(rows=EVEN, changes={"attn_implementation": name})[0] for name in ("sdpa", "eager"))
    assert fused.forward_flops == eager.forward_flops
    one_product = 2 * 2 * 4 * 24 * 24 * 8 * 2  # layers, rows, heads, T, S, head size, multiply and add
    assert 0 <= fused.backward_flops - eager.backward_flops <= 2 * one_product


def test_the_peak_holds_weights_state_and_logits_in_their_parts():
    cost, _ = both()
    model = adapted()
    parameters = list(model.parameters())
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    assert cost.resident[WEIGHTS] == sum(parameter.nbytes for parameter in parameters)
    size = sum(parameter.nbytes for parameter in trainable)
    assert cost.resident[OPTIMIZER] == 2 * size + 4 * len(trainable)
    assert cost.gradient_bytes == size
    assert cost.peak.total >= sum(cost.resident.values())
    assert LOGITS in cost.peak.parts


def test_accumulation_keeps_gradients_during_the_forward_pass():
    without, _ = both(accumulates=False)
    accumulating, real = both(accumulates=True)
    assert accumulating == real
    assert accumulating.peak.parts[GRADIENTS] >= without.peak.parts.get(GRADIENTS, 0)
    assert accumulating.peak.total >= without.peak.total


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.bfloat16, None), (torch.float32, None), (torch.float32, torch.bfloat16)],
)
def test_a_mixture_of_experts(dtype, autocast):
    config = MixtralConfig(
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        num_local_experts=4,
    )

    def mixture(device):
        model = MixtralForCausalLM(config).to(dtype).requires_grad_(False)
        return get_peft_model(model, ADAPTERS["lora"]()).to(device)

    mode, settings = FakeTensorMode(allow_non_fake_inputs=True), StepSettings(autocast=autocast)
    fake = measure_step(to_fake_cpu(mixture("meta"), mode), EVEN, settings, mode)
    assert fake == measure_step(mixture("cpu"), EVEN, settings)
    tokens, weights = 48, 2 * 2 * 3 * 64 * 96  # two layers, two experts for every token
    assert fake.forward_flops > 2 * tokens * weights


def test_frozen_layers_below_the_first_adapter_keep_nothing():
    def beyond(layers):
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        model = tiny_llama(num_hidden_layers=4).requires_grad_(False)
        lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], layers_to_transform=layers)
        fake = to_fake_cpu(get_peft_model(model, lora).to("meta"), mode)
        return measure_step(fake, EVEN, StepSettings(), mode).peak.total

    assert beyond([3]) < beyond([1]) < beyond([0])


def test_the_weights_of_a_simulated_model_stay_as_they_are():
    model = adapted("v1")
    before = copy.deepcopy(model.state_dict())
    measure_step(model, EVEN, StepSettings())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_labels_the_ends_of_its_rows():
    batch = make_batch(PADDED)
    assert batch["attention_mask"].sum(1).tolist() == [24, 17]
    assert (batch["labels"] != -100).sum(1).tolist() == [12, 5]
    assert (batch["labels"][1, 12:17] == 0).all()
