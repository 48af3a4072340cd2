"""Checkpointing policies: the same gradients, less memory, no trace."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llama_adapter import ZeroInitConfig
from llama_adapter.errors import UserError
from llama_adapter.training.activation_memory import RecomputedActivations, apply_checkpointing
from tests.live_bytes import LiveBytes

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=8)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SHAPE)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=3)),
    "mixtral, expert by expert": lambda: MixtralForCausalLM(
        MixtralConfig(**SHAPE, num_local_experts=3, experts_implementation="eager")
    ),
    "gpt2, with dropout": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=16, n_inner=96, n_layer=4, n_head=2, bos_token_id=1, eos_token_id=2)
    ),
}
POLICIES = ("selective", "mlp", "layer")
IDS = torch.randint(1, 40, (2, 12), generator=torch.Generator().manual_seed(0))


def adapted(name="llama", layers=(1, 2, 3), dropout=0.2):
    """LoRA with dropout in all layers but the first."""
    torch.manual_seed(0)
    targets = ["c_attn"] if "gpt2" in name else ["qkv_proj"] if name == "phi3" else ["q_proj", "v_proj"]
    config = LoraConfig(
        r=2,
        target_modules=targets,
        layers_to_transform=list(layers),
        init_lora_weights=False,
        lora_dropout=dropout,
        fan_in_fan_out="gpt2" in name,
    )
    return get_peft_model(MODELS[name](), config).train()


def step(model):
    """Loss and gradients, with the same dropout every time."""
    model.zero_grad()
    torch.manual_seed(3)
    logits = model(input_ids=IDS).logits
    loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_equal_and_nothing_is_left(name, policy):
    model = adapted(name)
    names = set(model.state_dict())
    plain = step(model)
    undo = apply_checkpointing(model, policy)
    assert set(model.state_dict()) == names
    found = step(model)
    undo()
    again = step(model)
    for loss, gradients in (found, again):
        assert torch.equal(loss, plain[0])
        assert gradients.keys() == plain[1].keys()
        for key, value in plain[1].items():  # to the last bit, but for where tensors lie in memory
            torch.testing.assert_close(gradients[key], value, rtol=1e-5, atol=1e-6 * float(value.abs().max()))
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def live_after_forward(model):
    """Bytes that are there after the forward pass and were not before it."""
    with LiveBytes(*model.parameters(), *model.buffers(), IDS) as tracker:
        logits = model(input_ids=IDS, use_cache=False).logits
        return tracker.live, logits


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2, with dropout", "mixtral"])
def test_each_policy_keeps_less_than_the_one_before(name):
    model = adapted(name, dropout=0.0)
    kept = []
    for policy in ("none", *POLICIES):
        undo = apply_checkpointing(model, policy)
        kept.append(live_after_forward(model)[0])
        undo()
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 4


def test_selective_leaves_one_tensor_of_the_inner_width_less_in_each_recorded_layer():
    model = adapted(dropout=0.0)
    before = live_after_forward(model)[0]
    undo = apply_checkpointing(model, "selective")
    after = live_after_forward(model)[0]
    undo()
    recorded = 3  # of four layers: the first is below the adapter
    assert before - after == recorded * IDS.numel() * SHAPE["intermediate_size"] * 4


@pytest.mark.parametrize("policy", ["mlp", "layer"])
def test_layers_below_the_first_adapted_one_run_once(policy):
    model = adapted(layers=(2, 3))
    runs = dict.fromkeys(range(4), 0)
    for index, layer in enumerate(model.get_base_model().model.layers):
        layer.mlp.gate_proj.register_forward_hook(
            lambda *_, index=index: runs.__setitem__(index, runs[index] + 1)
        )
    apply_checkpointing(model, policy)
    step(model)
    assert runs == {0: 1, 1: 1, 2: 2, 3: 2}


def test_every_second_layer():
    model = adapted(layers=(0, 1, 2, 3))
    runs = dict.fromkeys(range(4), 0)
    for index, layer in enumerate(model.get_base_model().model.layers):
        layer.mlp.gate_proj.register_forward_hook(
            lambda *_, index=index: runs.__setitem__(index, runs[index] + 1)
        )
    undo = apply_checkpointing(model, "layer", every=2)
    step(model)
    undo()
    assert runs == {0: 2, 1: 1, 2: 2, 3: 1}


@pytest.mark.parametrize("policy", POLICIES)
def test_recomputed_layers_see_the_same_prompts(policy):
    torch.manual_seed(0)
    model = get_peft_model(MODELS["llama"](), ZeroInitConfig(task_type="CAUSAL_LM", prompt_layers=2)).train()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "gate" in name:
                parameter.normal_()
    plain = step(model)
    apply_checkpointing(model, policy)
    found = step(model)
    assert torch.equal(plain[0], found[0])
    assert any(gradient.any() for gradient in plain[1].values())
    assert all(torch.equal(found[1][key], value) for key, value in plain[1].items())


@pytest.mark.parametrize("policy", POLICIES)
def test_evaluation_and_generation_are_not_touched(policy):
    model = adapted()
    apply_checkpointing(model, policy)
    model.eval()
    tokens = model.generate(input_ids=IDS, max_new_tokens=3, do_sample=False)
    with torch.no_grad():
        assert torch.equal(tokens[:, :12], IDS)
        assert tokens.shape == (2, 15)
        model(input_ids=IDS)


@pytest.mark.parametrize("policy", POLICIES)
def test_bf16_autocast(policy):
    model = adapted()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = step(model)
        apply_checkpointing(model, policy)
        found = step(model)
    assert all(torch.equal(found[1][key], value) for key, value in plain[1].items())


@pytest.mark.parametrize("policy", POLICIES)
def test_models_without_content(policy):
    with FakeTensorMode() as mode:
        model = MODELS["llama"]().train().requires_grad_(False)
        weight = model.model.layers[1].self_attn.q_proj.weight.requires_grad_()
        apply_checkpointing(model, policy)
        model(input_ids=mode.from_tensor(IDS), use_cache=False).logits.sum().backward()
    assert weight.grad is not None


def test_a_model_with_nothing_to_checkpoint_is_told():
    with pytest.raises(
        UserError, match=r"'mlp' finds nothing to checkpoint in Linear. Use checkpointing=none"
    ):
        apply_checkpointing(torch.nn.Linear(1, 1), "mlp")
    apply_checkpointing(torch.nn.Linear(1, 1), "none")()


def test_what_gets_the_memory_of_an_activation_is_not_taken_for_it():
    def experts(act, states):
        activation = act(states)
        total = activation.sum()
        del activation
        negative = states.neg()  # where the activation was
        return total + (negative * negative).sum()

    def gradient(act, run):
        states = torch.linspace(-1, 1, 5000, requires_grad=True)
        return torch.autograd.grad(run(act, states), states)[0]

    made = RecomputedActivations()
    plain = gradient(functional.silu, experts)
    assert torch.equal(plain, gradient(made.of(functional.silu), made.around(experts)))
