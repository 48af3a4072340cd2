"""The cache of the lower layers through the real trainer: the same losses and gradients, fewer layers run."""

import json
import logging
from collections import namedtuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, TrainerCallback

from llama_adapter import ZeroInitConfig
from llama_adapter.errors import UserError
from llama_adapter.training.frozen_stack import find_frozen_stack
from llama_adapter.training.lower_layers import LowerLayers

ROWS = 8
EPOCHS = 3


@pytest.fixture
def topped(base_dir):
    """The tiny base with prompts in the top layer only; its gates are open."""

    def load(dtype="float32", **options):
        base = LlamaForCausalLM.from_pretrained(base_dir, dtype=dtype).requires_grad_(False)
        torch.manual_seed(5)
        settings = {"prompt_length": 3, "prompt_layers": 1, "prompt_init_std": 0.5, "gate_init_std": 1.0}
        return get_peft_model(base, ZeroInitConfig(**{**settings, **options}))

    return load


@pytest.fixture
def run(trainer, topped, records, tmp_path):
    """Trains for three epochs; returns the trainer, its losses per step, and calls of layer 1 per epoch."""

    def make(model=None, train=None, cache=True, folder="run", evaluation=None, **settings):
        model = topped() if model is None else model
        made = trainer(
            model=model,
            evaluation=evaluation,
            train=records(ROWS) if train is None else train,
            folder=folder,
            **{
                "max_steps": -1,
                "num_train_epochs": EPOCHS,
                "cache_lower_layers": cache,
                "lower_layer_cache": str(tmp_path / "states"),
                **settings,
            },
        )
        calls = Calls()
        lower = find_frozen_stack(model)
        if not isinstance(lower, str):
            lower.below[0].self_attn.register_forward_hook(lambda *_: calls.count())
        made.add_callback(calls)
        return made, calls

    return make


class Calls(TrainerCallback):
    """Counts calls per epoch and keeps the gradients of every step."""

    def __init__(self):
        self.per_epoch, self.gradients = [], []

    def count(self):
        if self.per_epoch:
            self.per_epoch[-1] += 1

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.per_epoch.append(0)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def losses(made):
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def weights(made):
    return {n: p.detach().clone() for n, p in made.model.named_parameters() if p.requires_grad}


def test_equal_to_the_bit_when_rows_keep_their_shape_and_lower_layers_run_once(run, records):
    rows = [record for record in records(60) if len(record["input_ids"]) == 9][:ROWS]
    plain, plain_calls = run(cache=False, train=rows, folder="plain")
    cached, calls = run(train=rows)
    plain.train()
    cached.train()
    assert plain_calls.per_epoch == [4, 4, 4]
    assert calls.per_epoch == [4, 0, 0]
    assert losses(cached) == losses(plain)
    assert len(losses(plain)) == 12
    assert all(torch.equal(weights(cached)[name], value) for name, value in weights(plain).items())
    for one, other in zip(calls.gradients, plain_calls.gradients, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"preset": "v2", "delta_layers": 1}, {}),
        ({}, {"gradient_accumulation_steps": 2}),
        ({}, {"activation_checkpointing": True}),
        ({}, {"bf16": True}),
    ],
    ids=["prompts", "v2", "accumulation", "checkpointing", "bf16"],
)
def test_rows_padded_otherwise_give_the_same_curve(run, topped, options, settings):
    plain, _ = run(model=topped(**options), cache=False, folder="plain", **settings)
    cached, calls = run(model=topped(**options), **settings)
    plain.train()
    cached.train()
    assert calls.per_epoch == [4, 0, 0]
    scale = 1e-2 if settings.get("bf16") else 1e-6
    assert losses(cached) == pytest.approx(losses(plain), rel=scale)
    for name, value in weights(plain).items():
        assert torch.allclose(weights(cached)[name], value, atol=scale * 10), name


def test_states_are_stored_as_they_are_computed(run, topped):
    plain, _ = run(model=topped(dtype="bfloat16"), cache=False, folder="plain")
    cached, calls = run(model=topped(dtype="bfloat16"))
    plain.train()
    cached.train()
    assert cached.lower_layers.store.dtype == "bfloat16"
    assert calls.per_epoch == [4, 0, 0]
    assert losses(cached) == pytest.approx(losses(plain), rel=1e-2)


@pytest.mark.parametrize("batching", ["tokens", "packed"])
def test_batches_by_token_budget_find_the_records_of_other_batches(run, batching):
    settings = {"batching": batching, "tokens_per_batch": 30}
    run(folder="rows")[0].train()
    plain, _ = run(cache=False, folder="plain", **settings)
    cached, calls = run(**settings)
    plain.train()
    cached.train()
    assert calls.per_epoch == [0, 0, 0]
    assert losses(cached) == pytest.approx(losses(plain), rel=1e-6)
    assert len(cached.lower_layers.store) == ROWS


def test_dropout_above_sees_the_same_random_numbers(run, base_dir):
    def model():
        base = LlamaForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
        torch.manual_seed(5)
        settings = {"layers_to_transform": [2], "init_lora_weights": False, "lora_dropout": 0.4}
        return get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], **settings))

    plain, _ = run(model=model(), cache=False, folder="plain")
    plain.train()  # before the other one seeds the generator anew
    cached, calls = run(model=model())
    cached.train()
    assert calls.per_epoch == [4, 0, 0]
    assert losses(cached) == pytest.approx(losses(plain), rel=1e-6)


def test_evaluation_uses_and_fills_it(run, records):
    evaluation = records(5, seed=9, name="eval.jsonl")
    settings = {"eval_strategy": "epoch", "eval_on_start": True, "evaluation": evaluation}
    plain, _ = run(cache=False, folder="plain", **settings)
    cached, _ = run(**settings)
    for made in (plain, cached):
        made.train()
    values = [
        [e["eval_loss"] for e in made.state.log_history if "eval_loss" in e] for made in (plain, cached)
    ]
    assert len(values[0]) == 4
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert len(cached.lower_layers.store) == ROWS + 5


def test_another_run_finds_what_the_first_kept_and_other_weights_do_not(run, topped):
    first, _ = run()
    first.train()
    again, calls = run(folder="again")
    again.train()
    assert calls.per_epoch == [0, 0, 0]
    assert again.lower_layers.total.rate == 1.0
    assert losses(again) == pytest.approx(losses(first), rel=1e-6)
    changed = topped()
    with torch.no_grad():
        changed.get_base_model().model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    other, calls = run(model=changed, folder="other")
    other.train()
    assert calls.per_epoch == [4, 0, 0]


def test_a_changed_record_is_computed_anew(run, records):
    rows = records(ROWS)
    run(train=rows)[0].train()
    rows = [{**row, "input_ids": list(row["input_ids"])} for row in rows]
    rows[3]["input_ids"][0] += 1
    again, calls = run(train=rows, folder="again")
    again.train()
    assert calls.per_epoch[0] == 1  # the batch that holds it
    assert len(again.lower_layers.store) == ROWS + 1


def test_a_resumed_run_equals_one_that_was_not_stopped(run):
    settings = {"save_strategy": "steps", "save_steps": 6}
    whole, _ = run(folder="whole", lower_layer_cache=None, **settings)
    whole.train()
    part, _ = run(folder="part", lower_layer_cache=None, **settings)
    part.add_callback(StopAt(7))
    part.train()
    resumed, calls = run(folder="part", lower_layer_cache=None, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert calls.per_epoch == [0, 0]  # the rest of epoch 2, and epoch 3
    assert all(torch.allclose(weights(resumed)[n], v, atol=1e-6) for n, v in weights(whole).items())
    assert losses(resumed)[-1] == pytest.approx(losses(whole)[-1], rel=1e-6)


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def test_the_log_tells_hits_and_size(run, tmp_path, capsys):
    made, _ = run(logging_steps=4)
    assert "the output of layers 0 to 1 is kept in" in " ".join(capsys.readouterr().out.split())
    made.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    rates = [line["lower_layer_hit_rate"] for line in lines if "loss" in line]
    assert rates == [0.0, 1.0, 1.0]
    gib = lines[0]["lower_layer_cache_gib"]
    assert gib == pytest.approx(made.lower_layers.store.num_bytes / 2**30)
    assert made.lower_layers.total.rate == pytest.approx(2 / 3)


def test_flops_of_skipped_layers_do_not_count(run):
    plain, _ = run(cache=False, folder="plain")
    plain.train()
    cached, _ = run()
    cached.train()
    tokens = sum(len(row["input_ids"]) for row in cached.train_dataset)
    skipped = 2.0 * cached.lower_layers.stack.weights_below * tokens * (EPOCHS - 1)
    assert cached.meter.total.flops == pytest.approx(plain.meter.total.flops - skipped)


def test_nothing_is_left_on_the_model(run):
    made, _ = run()
    made.train()
    stack = made.lower_layers.stack
    assert all("forward" not in vars(layer) for layer in stack.layers)
    assert not stack.decoder._forward_hooks
    assert not stack.decoder._forward_pre_hooks


# what cannot be cached


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"neftune_noise_alpha": 5.0}, "noise is added to the embeddings"),
        ({"torch_compile": True}, "a compiled model cannot skip layers"),
    ],
)
def test_settings_that_do_not_fit_are_named(run, settings, reason):
    with pytest.raises(
        UserError, match=f"cache_lower_layers=True was asked for, .*{reason}.*Set it to false"
    ):
        run(**settings)


def test_models_that_do_not_fit_are_named_or_left_alone(run, topped, caplog):
    with pytest.raises(UserError, match="layer 0 is trained"):
        run(model=topped(prompt_layers=3))
    with caplog.at_level(logging.INFO):
        made, _ = run(model=topped(prompt_layers=3), cache="auto")
    assert made.lower_layers is None
    assert "lower layers are not cached: layer 0 is trained" in caplog.text


def test_a_disk_that_is_too_small(run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(0, 0, 1000))
    with pytest.raises(UserError, match="The states of the lower layers need about .* 1000 B free"):
        run()


@pytest.mark.parametrize(
    ("rates", "epochs", "used"),
    [((1e3, 1e9), 3, True), ((1e15, 1e3), 3, False), ((1e3, 1e9), 1, False)],
    ids=["slow device", "slow disk", "one epoch"],
)
def test_auto_decides_by_time(run, monkeypatch, caplog, rates, epochs, used):
    place = "llama_adapter.training.layer_caching"
    monkeypatch.setattr(f"{place}.measure_flops_per_second", lambda *_: rates[0])
    monkeypatch.setattr(f"{place}.measure_bytes_per_second", lambda _: rates[1])
    with caplog.at_level(logging.INFO):
        made, _ = run(cache="auto", num_train_epochs=epochs)
    assert (made.lower_layers is not None) == used
    assert ("lower layers are cached: it saves about" in caplog.text) == used


@pytest.fixture
def caching(topped, tmp_path):
    """A model and its cache, outside any trainer."""

    def make(model=None, strict=True):
        model = (topped() if model is None else model).eval()
        stack = find_frozen_stack(model)
        return model, LowerLayers(stack, tmp_path / "states", "no", torch.device("cpu"), strict)

    return make


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
RIGHT = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.mark.parametrize(
    "inputs",
    [
        {"input_ids": IDS, "attention_mask": RIGHT.flip(1)},
        {"inputs_embeds": torch.ones(1, 3, 16)},
        {"input_ids": IDS, "position_ids": torch.tensor([[3, 4, 5, 6]])},
        {"input_ids": IDS, "attention_mask": RIGHT, "position_ids": torch.tensor([[0, 1, 0, 1]])},
        {"input_ids": IDS, "position_ids": torch.tensor([[0, 1, 0, 1]])},
    ],
    ids=["left padding", "embeddings", "later positions", "packed under a mask", "packed beside a cache"],
)
def test_batches_that_cannot_be_told_apart(caching, inputs, caplog):
    model, cache = caching()
    with cache.attached(), pytest.raises(UserError, match="of this batch cannot be cached: .*Set training"):
        model(**inputs)
    model, cache = caching(strict=False)
    with torch.no_grad(), cache.attached():
        first, second = model(**inputs).logits, model(**inputs).logits
    assert torch.equal(first, second)
    assert caplog.text.count("They are computed as usual from now on") == 1
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, first)
    assert len(cache.store) == 0


def test_packed_records_and_single_ones_share_their_states(caching):
    model, cache = caching()
    packed = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 10, 11]]),
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2]]),
        "use_cache": False,
    }
    single = {"input_ids": IDS, "attention_mask": RIGHT}
    with torch.no_grad():
        expected = model(**packed).logits, model(**single).logits
        with cache.attached():
            model(**single)
            assert len(cache.store) == 2
            found = model(**packed).logits, model(**single).logits
    assert cache.total.found == 4
    assert torch.allclose(found[0], expected[0], atol=1e-5)
    assert torch.allclose(found[1][RIGHT == 1], expected[1][RIGHT == 1], atol=1e-6)


def test_a_model_whose_upper_layers_look_further_down_is_noticed(caching, topped, caplog):
    model = topped()
    layers = model.get_base_model().model.layers
    seen = {}
    layers[0].mlp.register_forward_hook(lambda _, __, output: seen.update(low=output))
    layers[2].mlp.register_forward_hook(lambda _, __, output: output + seen.pop("low", 0))
    _, cache = caching(model)
    inputs = {"input_ids": IDS, "attention_mask": RIGHT}
    with cache.attached(), pytest.raises(UserError, match="another output when its lower layers are skipped"):
        model(**inputs)
    _, cache = caching(model, strict=False)
    cache.folder = cache.folder.with_name("others")
    cache.store = cache._open("float32")
    with torch.no_grad():
        expected = model(**inputs).logits
        with cache.attached():
            assert all(torch.equal(model(**inputs).logits, expected) for _ in range(2))
    assert "upper layers use more of them" in caplog.text


def test_a_layer_that_returns_no_plain_tensor(caching, topped):
    model = topped()
    layer = model.get_base_model().model.layers[1]
    compute = layer.forward
    layer.forward = lambda *args, **kwargs: (compute(*args, **kwargs),)
    _, cache = caching(model)
    with cache.attached(), pytest.raises(UserError, match="Layer 1 returned a tuple, so its output cannot"):
        model(input_ids=IDS)
    assert vars(layer)["forward"] is not None  # what was there before is there again


def test_something_trained_below_is_noticed(caching, topped):
    model, cache = caching()
    model.get_base_model().model.embed_tokens.requires_grad_(True)
    with cache.attached(), pytest.raises(UserError, match="Layer 1 returned a tensor with a gradient"):
        model(input_ids=IDS)


def test_damaged_states_are_computed_again(caching):
    model, cache = caching()
    with torch.no_grad(), cache.attached():
        expected = model(input_ids=IDS).logits
    data = cache.store.folder / "data.bin"
    raw = bytearray(data.read_bytes())
    raw[7] ^= 255
    data.write_bytes(raw)
    _, cache = caching(model)
    with torch.no_grad(), cache.attached():
        assert all(torch.equal(model(input_ids=IDS).logits, expected) for _ in range(2))
    assert cache.total.rate == 0.5


def test_states_that_are_not_finite_are_left_to_the_guard(caching):
    model, cache = caching()
    with torch.no_grad():
        model.get_base_model().model.embed_tokens.weight[5] = float("nan")
    with torch.no_grad(), cache.attached():
        model(input_ids=IDS)
    assert len(cache.store) == 1


def test_learned_positions(caching):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=48, n_embd=16, n_layer=3, n_head=2, n_positions=32)
    base = GPT2LMHeadModel(config).requires_grad_(False)
    model, cache = caching(get_peft_model(base, ZeroInitConfig(prompt_length=2, prompt_layers=1)))
    inputs = {"input_ids": IDS, "attention_mask": RIGHT}
    with torch.no_grad():
        expected = model(**inputs).logits
        with cache.attached():
            found = [model(**inputs).logits for _ in range(2)][1]
    assert cache.total.rate == 0.5
    assert torch.allclose(found[RIGHT == 1], expected[RIGHT == 1], atol=1e-6)


def test_nothing_below_the_first_adapted_layer_is_saved_for_backward(topped):
    model = topped().train()
    saved = []
    inside = []

    def pack(tensor):
        saved.append(bool(inside))
        return tensor

    lower, first = model.get_base_model().model.layers[:2], model.get_base_model().model.layers[2]
    assert isinstance(first, nn.Module)
    for layer in lower:
        layer.register_forward_pre_hook(lambda *_: inside.append(1) or None)
        layer.register_forward_hook(lambda *_: inside.pop() and None)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=IDS, labels=IDS).loss.backward()
    assert len(saved) > 10
    assert not any(saved)
