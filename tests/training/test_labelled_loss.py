"""The loss of whole models without their logits: equal to full cross-entropy whatever the model's head and
tail are, and honest where it cannot be known."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionConfig,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from llama_adapter.errors import UserError
from llama_adapter.training.labelled_loss import LabelledLoss
from llama_adapter.training.loss import LabelledPositions

VOCABULARY, IMAGE = 40, 39
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.4,
    "pad_token_id": 0,
}


def llava():
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**SHAPE),
            image_token_id=IMAGE,
            vision_feature_layer=-1,
        )
    )


MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen2, tied": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "gpt2, tied": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=32,
            initializer_range=0.4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ),
    "gemma2, capped": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=2.0)
    ),
    "cohere, scaled": lambda: CohereForCausalLM(
        CohereConfig(**SHAPE, logit_scale=0.3, bos_token_id=1, eos_token_id=2)
    ),
    "granite, divided": lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=4.0)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=2)),
    "llava, images": llava,
}


class UnknownTail(LlamaForCausalLM):
    """A model that does to its logits what no configuration field tells."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = 3 * torch.sin(output.logits)
        return output


def adapted(base, **settings):
    torch.manual_seed(5)
    targets: list[str] | str = ["c_attn"] if isinstance(base, GPT2LMHeadModel) else ["q_proj", "v_proj"]
    if isinstance(base, LlavaForConditionalGeneration):
        targets = r".*language_model.*\.(q_proj|v_proj)"
    config = LoraConfig(r=2, target_modules=targets, init_lora_weights=False, **settings)
    config.fan_in_fan_out = isinstance(base, GPT2LMHeadModel)
    return get_peft_model(base, config)


def batch(with_image=False, seed=0):
    """Three rows of eight; the answers are labelled, and one row has none."""
    torch.manual_seed(seed)
    ids = torch.randint(1, IMAGE, (3, 8))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = ids.clone()
    labels[:, :5] = -100
    labels[1] = -100
    labels[2, 7] = -100
    if with_image:
        ids[:, 1:5] = IMAGE
        inputs["pixel_values"] = torch.randn(3, 3, 8, 8)
    return inputs, labels


def full_losses(model, inputs, labels, smoothing=0.0):
    logits = model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1)
    shifted = labels[:, 1:].flatten()
    losses = cross_entropy(logits, shifted, reduction="none", ignore_index=-100, label_smoothing=smoothing)
    return losses[shifted != -100]


def gradients(model, run, weights):
    """Of the weighted losses: those of the head's input, and those of all parameters."""
    states = []
    head = model.get_base_model().get_output_embeddings()
    handle = head.register_forward_pre_hook(
        lambda module, inputs: inputs[0].retain_grad() or states.append(inputs[0])
    )
    losses = run()
    handle.remove()
    model.zero_grad()
    (losses @ weights).backward()
    parameters = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return losses.detach(), states[-1].grad, parameters


def assert_same(model, loss, inputs, labels, smoothing=0.0):
    """Values and gradients, the latter under random weights, relative to the largest."""
    positions = LabelledPositions(labels)
    weights = torch.randn(len(positions.index))
    losses, at_head, ours = gradients(
        model, lambda: loss(model, inputs, positions, model.get_base_model(), smoothing)[1], weights
    )
    full, at_head_full, theirs = gradients(
        model, lambda: full_losses(model, inputs, labels, smoothing), weights
    )
    torch.testing.assert_close(losses, full, rtol=1e-6, atol=1e-6)
    assert (at_head - at_head_full).abs().max() <= 1e-6 * max(at_head_full.abs().max(), 1)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():  # layers below magnify what is left of rounding
        assert (ours[name] - gradient).abs().max() <= 1e-5 * max(gradient.abs().max(), 1), name


@pytest.mark.parametrize("kernel", ["auto", "narrowed"])
@pytest.mark.parametrize("name", MODELS)
def test_every_family_equals_full_cross_entropy(name, kernel, caplog):
    torch.manual_seed(0)
    model = adapted(MODELS[name]()).train()
    loss = LabelledLoss(kernel, chunk_rows=2)
    with caplog.at_level(logging.WARNING):
        for seed in range(2):  # the pass that verifies, and one that does not
            inputs, labels = batch("images" in name, seed)
            assert_same(model, loss, inputs, labels, smoothing=0.1 * seed)
    assert not caplog.records
    assert loss.kernel == {"auto": "chunked"}.get(kernel, kernel)
    assert "forward" not in model.get_base_model().get_output_embeddings().__dict__


def test_torchs_own_kernel_gives_the_same():
    pytest.importorskip("torch.nn.modules.linear_cross_entropy_options", reason="torch 2.14 has it")
    model = adapted(MODELS["qwen2, tied"]()).train()
    assert_same(model, LabelledLoss("torch", chunk_rows=2), *batch())


@pytest.mark.parametrize("name", ["gemma2, capped", "llama"])
def test_torchs_own_kernel_says_what_it_cannot_take(name):
    model = adapted(MODELS[name](), modules_to_save=["lm_head"] if name == "llama" else None)
    inputs, labels = batch()
    with pytest.raises(UserError, match=r"loss_kernel='torch' needs .* Use loss_kernel=auto"):
        LabelledLoss("torch")(model, inputs, LabelledPositions(labels), model.get_base_model())
    assert "forward" not in model.get_base_model().get_output_embeddings().__dict__


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [3, 5]}},
    ],
    ids=["whole head", "tokens of the head"],
)
def test_a_head_that_trains(settings):
    torch.manual_seed(0)
    model = adapted(MODELS["llama"](), **settings).train()
    assert_same(model, LabelledLoss(chunk_rows=2), *batch())


def test_a_head_that_trains_with_lora_and_one_that_is_tied():
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["v_proj", "lm_head"], init_lora_weights=False)
    assert_same(get_peft_model(MODELS["llama"](), config).train(), LabelledLoss(chunk_rows=2), *batch())
    tied = adapted(MODELS["qwen2, tied"](), trainable_token_indices=[3, 5]).train()
    assert_same(tied, LabelledLoss(chunk_rows=2), *batch())


def test_a_parameter_that_the_head_only_borrows_gets_its_gradient():
    torch.manual_seed(0)
    model = adapted(MODELS["llama"]()).train()
    scale = model.get_base_model().model.norm.weight.requires_grad_()
    head = model.get_base_model().lm_head
    plain = head.forward
    head.forward = lambda hidden: plain(hidden) * scale.sum()
    assert_same(model, LabelledLoss(chunk_rows=2), *batch())


def test_an_unknown_tail_is_noticed_said_once_and_computed_by_the_model(caplog):
    torch.manual_seed(0)
    model = adapted(UnknownTail(LlamaConfig(**SHAPE))).train()
    loss = LabelledLoss()
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            assert_same(model, loss, *batch(seed=seed))
    assert [record.getMessage()[:30] for record in caplog.records] == ["Models of type 'llama' change "]
    assert loss.kernel == "narrowed"


def test_a_field_that_means_something_else_is_noticed():
    model = adapted(MODELS["llama"]())
    model.config.logit_scale = 0.5  # LLaMA does not read it
    loss = LabelledLoss()
    assert_same(model, loss, *batch())
    assert loss.kernel == "narrowed"


def test_a_soft_cap_is_noticed_where_logits_are_small():
    """Below its cap a soft cap changes nothing that a comparison of logits would show."""
    model = adapted(Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=1e4)))
    base = model.get_base_model()
    forward, base.forward = base.forward, None

    def uncapped(*args, **kwargs):
        cap, base.config.final_logit_softcapping = base.config.final_logit_softcapping, 30.0
        try:
            return forward(*args, **kwargs)
        finally:
            base.config.final_logit_softcapping = cap

    base.forward = uncapped
    with torch.no_grad():
        base.lm_head.weight.mul_(1e-3)
    loss = LabelledLoss()
    inputs, labels = batch()
    loss(model, inputs, LabelledPositions(labels), base)
    assert loss.kernel == "narrowed"


def test_a_repeated_pass_draws_the_same_dropout():
    inputs, labels = batch()
    results = []
    for kernel in ("narrowed", "auto"):
        torch.manual_seed(0)
        model = adapted(UnknownTail(LlamaConfig(**SHAPE)), lora_dropout=0.5).train()
        torch.manual_seed(3)
        _, losses = LabelledLoss(kernel)(model, inputs, LabelledPositions(labels), model.get_base_model())
        results.append((losses, torch.rand(())))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_the_head_is_called_with_few_positions_and_left_as_it_was():
    model = adapted(MODELS["llama"]())
    head, seen = model.get_base_model().lm_head, []
    head.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    inputs, labels = batch()
    outputs, losses = LabelledLoss()(model, inputs, LabelledPositions(labels), model.get_base_model())
    assert len(losses) == 5
    assert outputs.logits.shape == (1, 1, VOCABULARY)
    model(**inputs)
    assert seen == [(1, 1, VOCABULARY), (3, 8, VOCABULARY)]


def test_the_model_goes_on_with_the_logits_of_the_first_label():
    model = adapted(MODELS["gemma2, capped"]()).eval()
    inputs, labels = batch()
    loss = LabelledLoss(trusted=True)
    outputs, _ = loss(model, inputs, LabelledPositions(labels), model.get_base_model())
    torch.testing.assert_close(outputs.logits[0, 0], model(**inputs).logits[0, 4])


def test_the_forward_comes_back_after_an_error():
    model = adapted(MODELS["llama"]())
    inputs, labels = batch()
    inputs["input_ids"] = inputs["input_ids"] + VOCABULARY
    with pytest.raises(IndexError):
        LabelledLoss()(model, inputs, LabelledPositions(labels), model.get_base_model())
    assert "forward" not in model.get_base_model().lm_head.__dict__


def test_a_head_that_gets_other_positions_is_left_alone():
    """With logits of chosen positions only, hidden states and labels do not match one to one."""
    model = adapted(MODELS["llama"]())
    inputs, labels = batch()
    loss = LabelledLoss()
    with pytest.raises(IndexError):  # as before: such logits cannot be matched to labels
        loss(model, {**inputs, "logits_to_keep": 2}, LabelledPositions(labels), model.get_base_model())
    assert loss.kernel == "chunked"


def test_without_an_output_embedding_the_models_logits_are_used():
    class Bare(nn.Module):
        def forward(self, input_ids):
            return type("Output", (), {"logits": nn.functional.one_hot(input_ids, 5).float()})

    labels = torch.tensor([[-100, 3, 4]])
    _, losses = LabelledLoss()(
        Bare(), {"input_ids": torch.tensor([[3, 3, 3]])}, LabelledPositions(labels), Bare()
    )
    expected = [cross_entropy(torch.eye(5)[3], torch.tensor(target)).item() for target in (3, 4)]
    assert losses.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("trains", [False, True], ids=["frozen head", "training head"])
def test_a_batch_without_any_label_gives_zeros_to_every_parameter(trains):
    model = adapted(MODELS["llama"](), modules_to_save=["lm_head"] if trains else None).train()
    inputs, labels = batch()
    _, losses = LabelledLoss()(
        model, inputs, LabelledPositions(torch.full_like(labels, -100)), model.get_base_model()
    )
    assert losses.shape == (0,)
    losses.sum().backward()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trainable)


def test_the_losses_hang_on_the_models_outputs():
    """DDP looks for used parameters behind the outputs; FSDP hangs its hooks on them."""
    model = adapted(MODELS["cohere, scaled"]()).train()
    inputs, labels = batch()
    for _ in range(2):
        loss, order = LabelledLoss(trusted=True), []
        outputs, losses = loss(model, inputs, LabelledPositions(labels), model.get_base_model())
        outputs.logits.register_hook(lambda gradient, order=order: order.append(gradient.abs().sum().item()))
        layer = model.get_base_model().model.layers[1]
        handle = layer.register_full_backward_hook(lambda *_, order=order: order.append("layer"))
        losses.sum().backward()
        handle.remove()
        assert order[0] == 0.0
    reached = set()
    pending = [outputs.logits.grad_fn]
    while pending:
        node = pending.pop()
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        pending.extend(after for after, _ in node.next_functions if after is not None)
    assert reached == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@pytest.fixture
def process_group():
    """A group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("trains", [False, True], ids=["frozen head", "training head"])
@pytest.mark.parametrize("whole", [True, False], ids=["one group", "a group for the head"])
def test_sharded_weights_are_gathered_where_the_losses_are_computed(process_group, whole, trains):
    inputs, labels = batch()
    found = []
    for sharded in (False, True):
        torch.manual_seed(0)
        model = adapted(MODELS["llama"](), modules_to_save=["lm_head"] if trains else None).train()
        base = model.get_base_model()
        if sharded:
            parts = [*base.model.layers, *([] if whole else [base.lm_head])]
            for part in [*parts, model]:
                fully_shard(part, reshard_after_forward=True, mesh=init_device_mesh("cpu", (1,)))
        loss = LabelledLoss(chunk_rows=2)
        for _ in range(2):
            _, losses = loss(model, inputs, LabelledPositions(labels), base)
            losses.mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([losses, *(g.full_tensor() if sharded else g for g in gradients)])
        assert loss.kernel == "chunked"
    assert len(found[0]) == len(found[1])
    for plain, gathered in zip(*found, strict=True):
        torch.testing.assert_close(gathered, plain)


def test_evaluation_builds_no_graph():
    model = adapted(MODELS["granite, divided"]()).eval()
    inputs, labels = batch()
    with torch.no_grad():
        _, losses = LabelledLoss()(model, inputs, LabelledPositions(labels), model.get_base_model())
    assert not losses.requires_grad
    torch.testing.assert_close(losses, full_losses(model, inputs, labels).detach())


def test_models_without_content():
    inputs, labels = batch()
    real = LabelledPositions(labels)
    with FakeTensorMode() as mode:
        model = MODELS["gemma2, capped"]().train().requires_grad_(False)
        wanted = [layer.mlp.up_proj.weight.requires_grad_() for layer in model.model.layers]
        fake = {name: mode.from_tensor(value) for name, value in inputs.items()}
        positions = real.mapped(mode.from_tensor)
        loss = LabelledLoss(chunk_rows=2, trusted=True)
        _, losses = loss(model, fake, positions, model)
        losses.mean().backward()
    assert losses.shape == (5,)
    assert all(weight.grad is not None for weight in wanted)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 3),
    tokens=st.integers(1, 7),
    chunk=st.integers(1, 9),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_any_labels_and_chunks(rows, tokens, chunk, share, seed):
    torch.manual_seed(seed)
    ids = torch.randint(1, IMAGE, (rows, tokens))
    labels = torch.where(torch.rand(rows, tokens) < share, ids, -100)
    model = SHARED.setdefault("model", adapted(MODELS["gemma2, capped"]()).train())
    assert_same(model, LabelledLoss(chunk_rows=chunk), {"input_ids": ids}, labels)


SHARED = {}
