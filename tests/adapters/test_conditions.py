"""Conditions: each record's prompts get its own addition, whatever the batch looks like."""

import subprocess
import sys
import threading

import pytest
import torch
from transformers import DynamicCache

from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.adapters import prompts
from llama_adapter.adapters.conditions import prompt_context
from llama_adapter.adapters.prompts import PromptLayer
from tests.adapters import tiny
from tests.adapters.matrix.subjects import SUBJECTS, disturb
from tests.adapters.matrix.tiny_models import output
from tests.adapters.test_generation_memory import CACHE
from tests.adapters.test_routing import padded, row, to_continue

LENGTH = 3
V1 = ZeroInitConfig(prompt_length=LENGTH, prompt_layers=[1, 3], task_type="CAUSAL_LM")


def adapted(**options):
    return tiny.adapted(prompt_length=LENGTH, prompt_layers=[1, 3], **options)


def conditions(records, length=LENGTH, width=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(records, length, width, generator=generator)


def with_prompts_moved(model, added, run):
    """What ``run`` gives when ``added`` is in the prompts themselves: layer index -> (P or 1, H)."""
    layers = [module for module in model.modules() if isinstance(module, PromptLayer)]
    values = [layer.zero_init_prompt["default"].value for layer in layers]
    before = [value.detach().clone() for value in values]
    with torch.no_grad():
        for layer, value in zip(layers, values, strict=True):
            value.add_(added.get(layer.layer_index, torch.zeros(1)))
        try:
            return run()
        finally:
            for value, old in zip(values, before, strict=True):
                value.copy_(old)


def same_for_all(tensor):
    return dict.fromkeys(range(4), tensor)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, LENGTH])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_rows_equal_their_own_prompts(length, implementation):
    model = adapted()
    model.set_attn_implementation(implementation)
    inputs, added = padded(rows=3), conditions(3, length)
    with prompt_context(model, added):
        got = model(**inputs).logits
    for index in range(3):
        want = with_prompts_moved(
            model, same_for_all(added[index]), lambda index=index: model(**row(inputs, index)).logits[0]
        )
        kept = inputs["attention_mask"][index].bool()
        torch.testing.assert_close(got[index][kept], want[kept], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got, model(**inputs).logits, atol=1e-2)


@torch.no_grad()
def test_layers_may_have_their_own():
    model = adapted()
    added = {3: conditions(2)}
    with prompt_context(model, added):
        got = model(tiny.ids()).logits
    for index in range(2):
        want = with_prompts_moved(
            model, {3: added[3][index]}, lambda index=index: model(tiny.ids()[index : index + 1]).logits[0]
        )
        torch.testing.assert_close(got[index], want, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "family", ["llama", "gemma2", "qwen3", "olmo2", "phi3", "gpt2", "bert", "siglip_vision_model"]
)
def test_families(family):
    subject = SUBJECTS[family]
    model = subject.adapt(subject.everything())
    inputs, added = subject.inputs(rows=2), conditions(2)
    with prompt_context(model, added):
        got = output(model, inputs)
    for index in range(2):
        want = with_prompts_moved(
            model, same_for_all(added[index]), lambda index=index: output(model, row(inputs, index))
        )
        torch.testing.assert_close(got[index : index + 1], want, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_records_without_a_condition_see_plain_prompts():
    model = adapted()
    added = conditions(3)
    added[1] = torch.nan
    with prompt_context(model, added, present=torch.tensor([True, False, True])):
        got = model(**padded(rows=3)).logits
    with prompt_context(model, added[[0, 0, 2]]):
        conditioned = model(**padded(rows=3)).logits
    plain = model(**padded(rows=3)).logits
    torch.testing.assert_close(got[1], plain[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(got[[0, 2]], conditioned[[0, 2]], atol=1e-6, rtol=0)
    with prompt_context(model, None):
        assert torch.equal(model(**padded(rows=3)).logits, plain)


def test_gradients_of_conditions_are_those_of_prompts():
    """One record in each row: what reaches a row's condition is what its prompts would get alone."""
    model = adapted()
    added = {1: conditions(2, seed=1).requires_grad_(), 3: conditions(2, 1, seed=3).requires_grad_()}
    weights = torch.randn(2, 12, tiny.VOCABULARY)
    with prompt_context(model, added):
        logits = model(tiny.ids()).logits
    (logits * weights).sum().backward()
    got = {index: tensor.grad for index, tensor in added.items()}
    layers = {m.layer_index: m for m in model.modules() if isinstance(m, PromptLayer)}
    for index in range(2):
        model.zero_grad()
        values = {place: layer.zero_init_prompt["default"].value for place, layer in layers.items()}
        moved = {place: tensor.detach()[index] for place, tensor in added.items()}

        def backward(index=index):
            with torch.enable_grad():
                (model(tiny.ids()[index : index + 1]).logits * weights[index]).sum().backward()

        with_prompts_moved(model, moved, backward)
        torch.testing.assert_close(got[1][index], values[1].grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got[3][index], values[3].grad.sum(0, True), atol=1e-4, rtol=1e-4)


def test_absent_records_get_a_gradient_of_zero():
    model = adapted()
    added = conditions(2).requires_grad_()
    with prompt_context(model, added, present=torch.tensor([False, False])):
        model(tiny.ids()).logits.sum().backward()
    assert torch.equal(added.grad, torch.zeros_like(added))


# Packed rows


def packed_and_not():
    """Two rows of 20 tokens that hold five records, the same records alone, and where each one lies."""
    lengths = [[9, 4, 7], [12, 8]]
    ids = tiny.ids(rows=2, length=20)
    index = torch.stack(
        [
            torch.repeat_interleave(torch.arange(3), torch.tensor(lengths[0])),
            torch.repeat_interleave(torch.arange(3, 5), torch.tensor(lengths[1])),
        ]
    )
    positions = torch.cat([torch.arange(n) for row in lengths for n in row]).view(2, 20)
    same = index[:, :, None] == index[:, None, :]
    mask = torch.where(same & torch.ones(20, 20).tril().bool(), 0.0, -torch.inf)[:, None]
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    return inputs, index, [ids[index == record][None] for record in range(5)]


@pytest.mark.parametrize("size", [4, 64])
@pytest.mark.parametrize("length", [1, LENGTH])
def test_packed_rows_equal_unpacked_ones(length, size, monkeypatch):
    monkeypatch.setattr("llama_adapter.token_blocks.TokenBlocks.of.__func__.__defaults__", (size,))
    model = adapted()
    inputs, index, records = packed_and_not()
    added = conditions(5, length).requires_grad_()
    weights = torch.randn(2, 20, tiny.VOCABULARY)
    with prompt_context(model, added, record_index=index):
        got = model(**inputs).logits
    ((got * weights).sum() / got.numel()).backward()
    gradients, added.grad = added.grad, None
    tuned = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    total = torch.zeros(())
    for record, ids in enumerate(records):
        with prompt_context(model, added[record : record + 1]):
            alone = model(ids).logits[0]
        torch.testing.assert_close(got[index == record], alone, atol=1e-5, rtol=1e-5)
        total = total + (alone * weights[index == record]).sum()
    (total / got.numel()).backward()
    torch.testing.assert_close(gradients, added.grad, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(tuned[name], parameter.grad, atol=1e-5, rtol=1e-5, msg=name)


@torch.no_grad()
def test_packed_rows_with_a_soft_cap():
    subject = SUBJECTS["gemma2"]
    model = subject.adapt(subject.everything())
    inputs, index, records = packed_and_not()
    added = conditions(5)
    mask = inputs.pop("attention_mask")
    by_kind = {"full_attention": mask, "sliding_attention": within_window(mask, index, 5)}
    with prompt_context(model, added, record_index=index):
        got = model(**inputs, attention_mask=by_kind).logits
    for record, ids in enumerate(records):
        with prompt_context(model, added[record : record + 1]):
            torch.testing.assert_close(got[index == record], model(ids).logits[0], atol=1e-4, rtol=1e-4)


def within_window(mask, index, width):
    place = torch.arange(index.shape[1])
    far = place[:, None] - place[None, :] >= width
    return mask.masked_fill(far, -torch.inf)


@torch.no_grad()
def test_tokens_of_no_record_see_plain_prompts():
    model = adapted()
    index = torch.tensor([[-1] * 12, [0] * 5 + [-1] * 7])
    with prompt_context(model, conditions(1), record_index=index):
        got = model(tiny.ids()).logits
    torch.testing.assert_close(got[0], model(tiny.ids()).logits[0], atol=1e-6, rtol=0)
    with prompt_context(model, conditions(1)):
        torch.testing.assert_close(got[1, :5], model(tiny.ids()).logits[1, :5], atol=1e-5, rtol=0)


# Generation

GREEDY = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3, "num_return_sequences": 2}, {"cache_implementation": "static"}],
    ids=["greedy", "beams", "static cache"],
)
def test_generations_equal_one_by_one(options):
    model = adapted()
    inputs, added = to_continue(rows=3), conditions(3)
    each = options.get("num_return_sequences", 1)
    with prompt_context(model, added):
        got = model.generate(**inputs, **GREEDY | options)
        without_cache = model.generate(**inputs, **GREEDY | options, use_cache=False)
    for index in range(3):
        with prompt_context(model, added[index : index + 1]):
            want = model.generate(**row(inputs, index), **GREEDY | options)
        assert torch.equal(got[index * each : (index + 1) * each], want)
    assert torch.equal(got, without_cache) or "cache_implementation" in options
    assert not torch.equal(got, model.generate(**inputs, **GREEDY | options))


def test_each_layer_projects_once_per_generation(monkeypatch):
    calls = []
    original = prompts.project_prompts
    monkeypatch.setattr(
        prompts, "project_prompts", lambda *args: calls.append(len(args[1])) or original(*args)
    )
    model = adapted()
    with prompt_context(model, conditions(2)):
        model.generate(**to_continue(rows=2), **GREEDY)
    assert calls == [2, 2]  # two records, in each of two layers


@torch.no_grad()
def test_two_interleaved_generations_keep_their_conditions():
    """Their caches hold their prompts; one cache under two conditions sees each in its turn."""
    model, tokens = adapted(), tiny.ids()
    added = [conditions(2, seed=seed) for seed in (0, 1)]
    want = []
    for each in added:
        with prompt_context(model, each):
            want.append(model(tokens).logits)
    caches = [DynamicCache(config=model.config) for _ in added]
    got = [[], []]
    for position in range(tokens.shape[1]):
        for cache, each, parts in zip(caches, added, got, strict=True):
            with prompt_context(model, each):
                step = tokens[:, position : position + 1]
                parts.append(model(step, **{CACHE: cache}, use_cache=True).logits)
    for parts, wanted in zip(got, want, strict=True):
        torch.testing.assert_close(torch.cat(parts, dim=1), wanted, atol=1e-5, rtol=0)
    one = DynamicCache(config=model.config)
    last = []
    for each in (added[0], added[1], None):
        with prompt_context(model, each):
            last.append(model(tokens, **{CACHE: one}, use_cache=True).logits[:, -1])
            one.crop(-tokens.shape[1])
    torch.testing.assert_close(torch.stack(last[:2]), torch.stack(want)[:, :, -1], atol=1e-5, rtol=0)
    torch.testing.assert_close(last[2], model(tokens).logits[:, -1], atol=1e-5, rtol=0)


def test_threads_do_not_see_each_other_s_conditions():
    model, inputs = adapted(), to_continue(rows=2)
    choices = [conditions(2, seed=0), conditions(2, seed=1), None]
    want, got = [], [None] * 3
    for added in choices:
        with prompt_context(model, added):
            want.append(model.generate(**inputs, **GREEDY))

    def run(index):
        with prompt_context(model, choices[index]):
            got[index] = model.generate(**inputs, **GREEDY)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(*pair) for pair in zip(got, want, strict=True))
    assert not torch.equal(want[0], want[1])


# With several adapters


@torch.no_grad()
def test_rows_may_have_adapters_and_conditions_of_their_own():
    model = adapted(deltas=["bias"])
    model.add_adapter("other", ZeroInitConfig(prompt_length=5, preset="v21", task_type="CAUSAL_LM"))
    model.add_adapter("none", ZeroInitConfig(preset="chat", task_type="CAUSAL_LM"))
    for seed, name in enumerate(model.peft_config):
        model.set_adapter(name)
        disturb(model, seed=seed)
    names = ["other", "default", "none", "__base__", "default"]
    inputs, added = padded(rows=5), conditions(5, 1)
    with prompt_context(model, added):
        got = model(**inputs, adapter_names=names).logits
        got_twice = model.generate(
            **to_continue(rows=5), adapter_names=names, num_beams=2, max_new_tokens=3, pad_token_id=0
        )
    for index, name in enumerate(names):
        kept = inputs["attention_mask"][index].bool()
        with prompt_context(model, added[index : index + 1]):
            want = model(**row(inputs, index), adapter_names=[name]).logits[0]
            tokens = model.generate(
                **row(to_continue(rows=5), index),
                adapter_names=[name],
                num_beams=2,
                max_new_tokens=3,
                pad_token_id=0,
            )
            if name in model.peft_config:
                model.set_adapter(name)
                plain = model(**row(inputs, index)).logits[0]
                torch.testing.assert_close(want[kept], plain[kept], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(got[index][kept], want[kept], atol=1e-5, rtol=1e-5, msg=name)
        assert torch.equal(got_twice[index], tokens[0]), name


# Activation checkpointing


@pytest.mark.parametrize("reentered", [False, True])
def test_recomputation_sees_the_conditions_of_its_own_forward(reentered):
    """Two forwards before two backwards, the contexts closed or another one open."""
    grads = []
    for checkpointing in (False, True):
        model = adapted().train()
        if checkpointing:
            model.get_base_model().activation_checkpointing_enable()
        added = [conditions(2, seed=seed).requires_grad_() for seed in (0, 1)]
        losses = []
        for each in added:
            with prompt_context(model, each):
                losses.append(model(tiny.ids()).logits.square().mean())
        plain = model(tiny.ids()).logits.square().mean()
        with prompt_context(model, conditions(2, seed=5) if reentered else None):
            for loss in (losses[1], plain, losses[0]):
                loss.backward()
        grads.append([each.grad for each in added])
        grads[-1] += [p.grad for p in model.parameters() if p.requires_grad]
    for without, with_checkpoints in zip(*grads, strict=True):
        torch.testing.assert_close(with_checkpoints, without)


def test_checkpointing_of_any_kind_carries_the_context():
    """A function of one's own, with contexts of its own, set on the layers by hand."""
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    def keep_products(ctx, op, *args, **kwargs):
        from torch.utils.checkpoint import CheckpointPolicy

        return (
            CheckpointPolicy.MUST_SAVE
            if op == torch.ops.aten.mm.default
            else CheckpointPolicy.PREFER_RECOMPUTE
        )

    def own(function, *args):
        contexts = lambda: create_selective_checkpoint_contexts(keep_products)  # noqa: E731
        return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)

    grads = []
    for function in (None, own):
        model = adapted().train()
        for layer in model.base_model.model.model.layers if function else ():
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = function
        added = conditions(2).requires_grad_()
        for _ in range(2):  # decorated once
            with prompt_context(model, added):
                loss = model(tiny.ids()).logits.square().mean()
        loss.backward()
        grads.append(added.grad)
    torch.testing.assert_close(*grads)


# What is refused


@pytest.mark.parametrize(
    ("added", "options", "message"),
    [
        (torch.zeros(3, LENGTH, 64), {}, "batch of 2 rows does not go with 3 conditions"),
        (torch.zeros(2, 2, 64), {}, r"Conditions for 2 prompts meet 3 prompts in .*layers.1.self_attn"),
        (torch.zeros(2, LENGTH, 8), {}, r"shape \(2, 3, 8\). Use \(records, prompts or 1, 64\)"),
        ({0: torch.zeros(2, 1, 64)}, {}, r"name layer 0. Use layers with prompts: \[1, 3\]"),
        ({}, {}, "for no layer. Use None"),
        (
            {1: torch.zeros(2, 1, 64), 3: torch.zeros(1, 1, 64)},
            {},
            r"Conditions of \[1, 2\] records came",
        ),
        (torch.zeros(2, 1, 64), {"present": torch.ones(3, dtype=torch.bool)}, "3 values for 2 records"),
        (
            torch.zeros(2, 1, 64),
            {"record_index": torch.full((2, 12), 2)},
            "goes from 2 to 2, with 2 conditions",
        ),
        (
            torch.zeros(2, 1, 64),
            {"record_index": torch.zeros(1, 12, dtype=torch.long)},
            r"has the shape \(1, 12\), the pass \(2, 12\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(added, options, message):
    model = adapted()
    want = model(tiny.ids()).logits
    with pytest.raises(UserError, match=message), prompt_context(model, added, **options):
        model(tiny.ids())
    assert torch.equal(model(tiny.ids()).logits, want)


def test_a_model_without_prompts_is_refused():
    model = tiny.adapted(prompt_length=0, deltas=["bias"])
    with (
        pytest.raises(UserError, match="has no prompts, so conditions have nothing to add to"),
        prompt_context(model, conditions(2)),
    ):
        model(tiny.ids())


def test_adapters_and_conditions_of_other_numbers_are_refused():
    model = adapted()
    with (
        pytest.raises(UserError, match="conditions of 1 records and adapter names of 2"),
        prompt_context(model, conditions(1)),
    ):
        model(tiny.ids(), adapter_names=["default", "__base__"])


def test_adapters_of_rows_and_packed_rows_are_refused():
    model = adapted()
    index = torch.zeros(2, 12, dtype=torch.long)
    with (
        pytest.raises(UserError, match="adapter_names and record_index"),
        prompt_context(model, conditions(1), record_index=index),
    ):
        model(tiny.ids(), adapter_names=["default", "default"])


def test_compiled_passes_equal_plain_ones(repository):
    """In a process of its own; see the program."""
    program = [sys.executable, "-m", "tests.adapters.compiled_context"]
    done = subprocess.run(program, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
