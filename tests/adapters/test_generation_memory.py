"""Prompts are projected once per generation, for it alone, and never kept while gradients are on."""

from inspect import signature

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, LlamaForCausalLM

from llama_adapter.adapters import prompts
from tests.adapters import tiny

CACHE = "cache" if "cache" in signature(LlamaForCausalLM.forward).parameters else "past_key_values"
"""What this transformers calls the cache: the name changed in 5.24."""


@pytest.fixture
def projections(monkeypatch):
    """Counts how often prompts are projected."""
    calls = []

    def project(attention, rows, head_size):
        calls.append(attention)
        return original(attention, rows, head_size)

    original = prompts.project_prompts
    monkeypatch.setattr(prompts, "project_prompts", project)
    return calls


def adapted(**options):
    """A tiny LLaMA whose prompts matter."""
    model = tiny.adapted(prompt_length=3, gate_init_std=1.0, **options).eval()
    return model, sum(isinstance(module, prompts.PromptLayer) for module in model.modules())


def step(model, tokens, cache=None):
    with torch.no_grad():
        return model(input_ids=tokens, **{CACHE: cache}, use_cache=cache is not None).logits


def generate(model, **options):
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    return model.generate(input_ids=tiny.ids(), **settings | options)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}])
def test_prompts_are_projected_once_per_generation(projections, options):
    model, layers = adapted()
    with_memory = generate(model, **options)
    assert len(projections) == layers
    generate(model, **options)
    assert len(projections) == 2 * layers
    without = generate(
        model, **{name: value for name, value in options.items() if "beams" in name}, use_cache=False
    )
    assert torch.equal(with_memory, without)


def test_a_further_token_costs_three_operators_per_layer():
    model, layers = adapted()
    counts = []
    for each in (model, tiny.llama()):
        cache = DynamicCache(config=each.config)
        step(each, tiny.ids(), cache)
        with CountOperators() as counter:
            step(each, tiny.ids()[:, :1], cache)
        counts.append(counter.count)
    assert counts[0] - counts[1] == 3 * layers


class CountOperators(TorchDispatchMode):
    """Counts what reaches a kernel."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


def test_nothing_is_kept_while_gradients_are_on(projections):
    model, layers = adapted()
    cache = DynamicCache(config=model.config)
    for _ in range(2):
        model(input_ids=tiny.ids(), **{CACHE: cache}).logits.sum().backward()
        cache = DynamicCache(config=model.config)
    assert len(projections) == 2 * layers
    assert all(p.grad is not None for name, p in model.named_parameters() if "zero_init_prompt" in name)
    model(input_ids=tiny.ids(), **{CACHE: cache})
    assert not hasattr(cache, "prompt_attention_memory")


def test_an_evaluation_between_training_steps_sees_the_new_weights():
    model, _ = adapted()
    before = step(model, tiny.ids(), DynamicCache(config=model.config))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(input_ids=tiny.ids(), labels=tiny.ids()).loss.backward()
    optimizer.step()
    after = step(model, tiny.ids(), DynamicCache(config=model.config))
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, step(model, tiny.ids()))


def test_weights_loaded_between_two_generations_count():
    model, _ = adapted()
    other, _ = adapted()
    tiny.disturb(other, seed=3)
    before = step(model, tiny.ids(), DynamicCache(config=model.config))
    assert not torch.allclose(before, step(other, tiny.ids()))
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(
        step(model, tiny.ids(), DynamicCache(config=model.config)), step(other, tiny.ids())
    )


def test_another_type_of_weights_is_another_generation(projections):
    model, layers = adapted()
    step(model, tiny.ids(), DynamicCache(config=model.config))
    model.to(torch.bfloat16)
    step(model, tiny.ids(), DynamicCache(config=model.config))
    assert len(projections) == 2 * layers


def test_two_generations_at_once_do_not_see_each_other_s_adapter():
    model, _ = adapted()
    model.add_adapter("other", model.peft_config["default"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".other." in name:
                parameter.normal_()
    caches = {name: DynamicCache(config=model.config) for name in ("default", "other")}
    want, tokens = {}, tiny.ids()
    for name in caches:
        model.set_adapter(name)
        want[name] = step(model, tokens)
    got = {name: [] for name in caches}
    for position in range(tokens.shape[1]):
        for name, cache in caches.items():
            model.set_adapter(name)
            got[name].append(step(model, tokens[:, position : position + 1], cache))
    for name in caches:
        torch.testing.assert_close(torch.cat(got[name], dim=1), want[name], atol=1e-5, rtol=0)
    assert not torch.allclose(want["default"], want["other"])


def test_switching_within_one_generation_uses_the_other_adapter_s_prompts(projections):
    model, layers = adapted()
    model.add_adapter("other", model.peft_config["default"])
    cache = DynamicCache(config=model.config)
    for name in ("default", "other", "default"):
        model.set_adapter(name)
        step(model, tiny.ids(), cache)
    assert len(projections) == 2 * layers


def test_unloading_leaves_no_hook_behind():
    model, _ = adapted()
    base = model.unload()
    assert all(
        not module._forward_pre_hooks_with_kwargs for module in base.modules() if hasattr(module, "q_proj")
    )
