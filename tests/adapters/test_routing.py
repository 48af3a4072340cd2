"""Several adapters in one batch: every row as if it were alone with its own."""

import threading

import pytest
import torch
from peft import get_peft_model
from transformers import DynamicCache

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters import prompts
from tests.adapters import tiny
from tests.adapters.matrix.subjects import SUBJECTS, disturb
from tests.adapters.matrix.tiny_models import output
from tests.adapters.test_generation_memory import CACHE, CountOperators

BASE = "__base__"
PRESETS = ["v1", "v2", "v21", "chat", "imagebind"]
NAMES = [*PRESETS, BASE, "v2", "long"]


@pytest.fixture(scope="module")
def model():
    """A LLaMA with an adapter of every preset, and one with more prompts, one gate per layer, no tanh."""
    return with_adapters(tiny.llama())


def with_adapters(base, extra=None):
    configs = {preset: ZeroInitConfig(preset=preset, task_type="CAUSAL_LM") for preset in PRESETS}
    configs["long"] = ZeroInitConfig(
        prompt_length=13,
        prompt_layers=[1, 3],
        gate="scalar",
        gate_activation="identity",
        new_gate=True,
        deltas=["bias", {"kind": "lora", "rank": 3}, "output_scale"],
        norms={"targets": ["input_layernorm"], "final_norm": False},
        task_type="CAUSAL_LM",
    )
    configs |= extra or {}
    return adapted(base, configs)


def adapted(base, configs):
    """A model with the named adapters, each far from its start and from the others."""
    first, *others = configs
    model = get_peft_model(base, configs[first], adapter_name=first)
    for name in others:
        model.add_adapter(name, configs[name])
    for seed, name in enumerate(configs):
        model.set_adapter(name)
        disturb(model, seed=seed)
    return model.eval()


def padded(rows=8):
    """Rows of different lengths, padded on the left."""
    ids = tiny.ids(rows=rows, length=9)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : row % 4] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids * mask, "attention_mask": mask, "position_ids": positions}


def to_continue(rows=8):
    """The same for ``generate``, which counts positions itself."""
    return {name: tensor for name, tensor in padded(rows).items() if name != "position_ids"}


def alone(model, name, run):
    """What ``run`` gives with one adapter active."""
    if name == BASE:
        with model.disable_adapter():
            return run()
    model.set_adapter(name)
    return run()


def row(inputs, index):
    return {name: tensor[index : index + 1] for name, tensor in inputs.items()}


@pytest.fixture(params=["sdpa", "eager"])
def implementation(request, model):
    model.set_attn_implementation(request.param)
    yield
    model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_logits_equal_one_by_one(model, implementation):
    inputs = padded()
    got = model(**inputs, adapter_names=NAMES).logits
    for index, name in enumerate(NAMES):
        want = alone(model, name, lambda index=index: model(**row(inputs, index)).logits[0])
        kept = inputs["attention_mask"][index].bool()
        torch.testing.assert_close(got[index][kept], want[kept], atol=1e-5, rtol=1e-5, msg=name)
    base = alone(model, BASE, lambda: model(**inputs).logits)
    changed = (got - base).abs().amax(dim=(1, 2)) > 1e-2
    assert changed.tolist() == [name != BASE for name in NAMES]


@torch.no_grad()
@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "gemma2", "olmo2", "gpt2", "bert", "siglip_vision_model"]
)
def test_families(family):
    """Key norms, soft caps, norms with one plus their weight, LayerNorms, fused and transposed maps."""
    subject = SUBJECTS[family]
    some = [{"kind": "bias", "targets": ["attention"]}, {"kind": "input_scale", "targets": ["mlp"]}]
    configs = {
        "all": subject.everything(),
        "other": subject.everything(prompt_length=5, deltas=some, gate="scalar", new_gate=False),
        "deltas": subject.deltas_only(subject.deltas()[::-1], delta_layers=[1]),
    }
    model = adapted(subject.base(), configs)
    names = ["other", "all", BASE, "deltas", "all"]
    inputs = subject.inputs(rows=len(names))
    got = output(model, inputs, adapter_names=names)
    for index, name in enumerate(names):
        want = alone(model, name, lambda index=index: output(model, row(inputs, index)))
        torch.testing.assert_close(got[index : index + 1], want, atol=1e-4, rtol=1e-4, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("adapter_dtype", [torch.float32, torch.bfloat16])
def test_half_precision_equals_one_by_one_as_closely_as_it_can(adapter_dtype):
    """PEFT keeps the adapter of a half-precision base in float32."""
    names = ["v21", "long", BASE, "v2"]
    single = with_adapters(tiny.llama())
    model = with_adapters(tiny.llama().to(torch.bfloat16))
    if adapter_dtype == torch.bfloat16:
        model.to(adapter_dtype)
    assert {p.dtype for n, p in model.named_parameters() if "zero_init" in n} == {adapter_dtype}
    inputs = padded(rows=4)
    got = model(**inputs, adapter_names=names).logits
    assert got.dtype == torch.bfloat16
    exact = single(**inputs, adapter_names=names).logits
    for index, name in enumerate(names):
        want = alone(model, name, lambda index=index: model(**row(inputs, index)).logits[0])
        kept = inputs["attention_mask"][index].bool()
        apart = (got[index][kept] - want[kept]).float().square().mean().sqrt()
        rounding = (want[kept].float() - exact[index][kept]).square().mean().sqrt()
        assert apart <= rounding, name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 2},
        {"cache_implementation": "static"},
        {"use_cache": False},
    ],
    ids=["greedy", "beams", "static cache", "no cache"],
)
def test_generations_equal_one_by_one(model, options):
    inputs = to_continue()
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0} | options
    got = model.generate(**inputs, adapter_names=NAMES, **settings)
    each = settings.get("num_return_sequences", 1)
    for index, name in enumerate(NAMES):
        want = alone(model, name, lambda index=index: model.generate(**row(inputs, index), **settings))
        assert torch.equal(got[index * each : (index + 1) * each], want), name


def test_samples_equal_one_by_one(model):
    """Two samples of each row; every token is drawn from the distribution of the row's own adapter."""
    inputs = to_continue(rows=3)
    names = ["v2", BASE, "long"]
    result = model.generate(
        **inputs,
        adapter_names=names,
        do_sample=True,
        num_return_sequences=2,
        max_new_tokens=4,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    for index, sequence in enumerate(result.sequences):
        mask = torch.cat([inputs["attention_mask"][index // 2], torch.ones(4, dtype=torch.long)])
        positions = (mask.cumsum(0) - 1).clamp(min=0)
        whole = {
            "input_ids": sequence[None],
            "attention_mask": mask[None],
            "position_ids": positions[None],
        }
        with torch.no_grad():
            logits = alone(model, names[index // 2], lambda whole=whole: model(**whole).logits[0, -5:-1])
        torch.testing.assert_close(
            torch.stack(result.logits)[:, index], logits, atol=1e-5, rtol=1e-4, msg=str(index)
        )


def test_each_layer_projects_once_per_generation(model, monkeypatch):
    calls = []
    original = prompts.project_prompts
    monkeypatch.setattr(
        prompts, "project_prompts", lambda *args: calls.append(len(args[1])) or original(*args)
    )
    inputs = to_continue(rows=4)
    names = ["imagebind", "v2", "imagebind", "v21"]
    model.generate(**inputs, adapter_names=names, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert calls == [3] * 4  # three distinct adapters at once, in each of four layers


@torch.no_grad()
@pytest.mark.parametrize("preset", PRESETS)
def test_operators_do_not_grow_with_the_number_of_adapters(preset):
    config = ZeroInitConfig(preset=preset, task_type="CAUSAL_LM")
    names = ["v1", "a", "b", "c"]
    model = adapted(tiny.llama(), dict.fromkeys(names, config))
    counts = []
    for chosen in (["v1", "a", "v1", "a"], names):
        cache = DynamicCache(config=model.config)
        passes = []
        for length in (6, 1):
            with CountOperators() as counter:
                model(tiny.ids(rows=4, length=length), **{CACHE: cache}, adapter_names=chosen)
            passes.append(counter.count)
        counts.append(passes)
    assert counts[0] == counts[1]


@torch.no_grad()
def test_prompts_cost_three_operators_per_layer_and_token_with_many_adapters():
    configs = [ZeroInitConfig(prompt_length=length, task_type="CAUSAL_LM") for length in (3, 5)]
    model = adapted(tiny.llama(), dict(zip(["v1", "a"], configs, strict=True)))
    counts = []
    for names in (["v1", "a"], None):
        cache = DynamicCache(config=model.config)
        for length in (6, 1):
            with CountOperators() as counter:
                model(tiny.ids(length=length), **{CACHE: cache}, adapter_names=names)
        counts.append(counter.count)
    assert counts[0] == counts[1]


def test_two_generations_at_once_keep_their_adapters(model):
    inputs = to_continue(rows=2)
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    choices = [["v1", "v2"], ["long", BASE], ["v21", "v21"]]
    want = [model.generate(**inputs, adapter_names=names, **settings) for names in choices]
    got = [None] * len(choices)

    def run(index):
        got[index] = model.generate(**inputs, adapter_names=choices[index], **settings)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(choices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))


def test_gradients_reach_each_row_s_adapter_alone(model):
    model.base_model.set_adapter(["v1", "v2", "v21"])
    tensors = {name: p for name, p in model.named_parameters() if p.requires_grad}
    logits = model(**padded(rows=2), adapter_names=["v1", "v2"]).logits
    logits[1].sum().backward()
    touched = {name.rsplit(".", 2)[-2] for name, p in tensors.items() if p.grad is not None and p.grad.any()}
    model.zero_grad(set_to_none=True)
    assert touched == {"v2"}


def test_nothing_is_left_after_a_pass_or_an_error(model):
    inputs = padded(rows=2)
    model.set_adapter("v1")
    want = model(**inputs).logits
    model(**inputs, adapter_names=["v2", "v21"])
    with pytest.raises(UserError, match="2 rows"):
        model(**inputs, adapter_names=["v2", "v21", "v1"])
    assert torch.equal(model(**inputs).logits, want)


def test_other_models_inside_a_pass_see_no_names(model):
    """As an assistant that drafts tokens has."""
    other = tiny.adapted(prompt_length=3)
    want = other(tiny.ids()).logits
    with model.base_model._enable_peft_forward_hooks(adapter_names=["v1", "v2", BASE]):
        assert torch.equal(other(tiny.ids()).logits, want)


def test_disabled_adapters_stay_off(model):
    inputs = padded(rows=2)
    with model.disable_adapter():
        want = model(**inputs).logits
        assert torch.equal(model(**inputs, adapter_names=["v1", "v2"]).logits, want)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["v1", "nope"], r"no adapter 'nope'\. Use some of \['__base__', 'chat'"),
        ("v1", "adapter_names is 'v1'. Use a list"),
        ([], "Use a list"),
        (["v1", "v2", "v21"], "batch of 2 rows does not go with 3"),
    ],
)
def test_wrong_names_are_refused(model, names, message):
    with pytest.raises(UserError, match=message):
        model(**padded(rows=2), adapter_names=names)


def test_training_is_refused():
    model = tiny.adapted(prompt_length=3).train()
    with pytest.raises(UserError, match=r"training mode. Use model.eval\(\)"):
        model(tiny.ids(), adapter_names=["default", BASE])


def test_a_delta_without_neutral_values_computes_each_adapters_own_rows(model, monkeypatch):
    inputs, names = padded(rows=4), ["v2", "v1", "long", "v2"]
    want = model(**inputs, adapter_names=names).logits
    monkeypatch.setattr("llama_adapter.adapters.deltas.Bias.neutral", None)
    torch.testing.assert_close(model(**inputs, adapter_names=names).logits, want, atol=1e-5, rtol=1e-5)


def test_a_norm_that_cannot_differ_by_row_says_so():
    class Odd(torch.nn.LayerNorm):
        def forward(self, x):
            return super().forward(x)

    base = SUBJECTS["bert"].base()
    model = adapted(base, {name: ZeroInitConfig(prompt_length=0, norms=True) for name in "ab"})
    model.base_model.model.bert.encoder.layer[0].output.LayerNorm.base_layer.__class__ = Odd
    with pytest.raises(UserError, match="The norm Odd cannot have weights per row"):
        model(**SUBJECTS["bert"].inputs(), adapter_names=["a", "b"])


def test_modules_saved_whole_follow_their_rows():
    config = ZeroInitConfig(prompt_length=2, task_type="CAUSAL_LM", modules_to_save=["lm_head"])
    model = with_adapters(tiny.llama(), {"whole": config})
    inputs = padded(rows=3)
    names = ["whole", BASE, "v2"]
    got = model(**inputs, adapter_names=names).logits
    for index, name in enumerate(names):
        want = alone(model, name, lambda index=index: model(**row(inputs, index)).logits[0])
        torch.testing.assert_close(got[index, index:], want[index:], atol=1e-5, rtol=1e-5, msg=name)
