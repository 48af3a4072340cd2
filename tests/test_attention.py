import copy
import pickle
import sys
import threading

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llama_adapter import attention
from tests.adapters import tiny


@pytest.fixture
def late_key():
    """An attention function registered under a new name, as hub kernels are."""
    key = "late_kernel"

    def kernel(module, *args, **kwargs):
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register(key, kernel)
    AttentionMaskInterface.register(key, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    yield key
    AttentionInterface._global_mapping.pop(key)
    AttentionMaskInterface._global_mapping.pop(key)


def test_registered_functions_are_decorated_once():
    decorated = ALL_ATTENTION_FUNCTIONS["sdpa"]
    attention.decorate_key("sdpa")
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is decorated
    assert decorated.__wrapped__ is sdpa_attention_forward


def test_an_unknown_key_is_left_alone():
    attention.decorate_key("no_such_kernel")
    assert "no_such_kernel" not in ALL_ATTENTION_FUNCTIONS


def test_a_module_without_prompts_gets_the_very_same_output():
    output = torch.randn(1, 3, 4, 8)
    decorated = attention.add_prompts(lambda *args, **kwargs: (output, None))
    query, key, value = torch.randn(3, 1, 4, 3, 8)
    assert decorated(torch.nn.Identity(), query, key, value, None)[0] is output


def test_eager_is_decorated_only_in_the_adapted_models_file():
    from transformers.models.glm4 import modeling_glm4  # no test adapts it

    tiny.adapted(prompt_length=3)
    from transformers.models.llama import modeling_llama

    assert modeling_llama.eager_attention_forward.adds_prompts
    assert not hasattr(modeling_glm4.eager_attention_forward, "adds_prompts")


def test_a_function_registered_before_attaching_is_decorated(late_key):
    base = tiny.llama(attn_implementation=late_key)
    want = base(tiny.ids()).logits
    model = tiny.adapted(base, prompt_length=3)
    assert not torch.allclose(model(tiny.ids()).logits, want, atol=1e-4)


def test_a_function_registered_after_attaching_is_an_error_that_names_it(late_key):
    model = tiny.adapted(prompt_length=3)
    model.set_attn_implementation(late_key)
    with pytest.raises(
        RuntimeError, match=r"layers\.0\.self_attn.*'late_kernel' was registered after"
    ) as caught:
        model(tiny.ids())
    assert "decorate_key('late_kernel')" in str(caught.value)
    attention.decorate_key(late_key)
    model(tiny.ids())


def test_switching_the_implementation_keeps_the_prompts():
    model = tiny.adapted(prompt_length=3)
    want = model(tiny.ids()).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(tiny.ids()).logits, want, atol=1e-5, rtol=0)


def test_attention_that_bypasses_the_interface_is_an_error():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=97,
        n_embd=32,
        n_layer=2,
        n_head=4,
        reorder_and_upcast_attn=True,
        attn_implementation="eager",
    )
    model = tiny.adapted(GPT2LMHeadModel(config).eval(), prompt_length=3)
    with pytest.raises(RuntimeError, match="GPT2Attention with attn_implementation='eager' bypassed"):
        model(tiny.ids())


def test_dropping_prompts_leaves_no_trace():
    model = tiny.adapted(prompt_length=3)
    layer = model.base_model.model.model.layers[0].self_attn
    attention.drop_prompts(layer)
    assert type(layer) is type(tiny.llama().model.layers[0].self_attn)
    assert not hasattr(layer, attention.PROMPT_BRANCH)


def test_a_module_with_prompts_passes_for_one_of_its_own_class():
    layer = tiny.adapted(prompt_length=3).base_model.model.model.layers[0].self_attn
    plain = type(tiny.llama().model.layers[0].self_attn)
    assert isinstance(layer, plain)
    assert type(layer) is not plain
    assert type(layer).__name__ == plain.__name__
    assert not layer._forward_hooks  # with which torch takes a longer way into the module
    assert not layer._forward_pre_hooks


def test_a_module_with_prompts_survives_pickling():
    layer = tiny.adapted(prompt_length=3).base_model.model.model.layers[0].self_attn
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is type(layer)
    assert again.state_dict().keys() == layer.state_dict().keys()


def test_threads_share_a_model():
    model = tiny.adapted(prompt_length=3)
    inputs = [tiny.ids(rows=rows) for rows in (1, 2, 3, 4)]
    want = [model(x).logits for x in inputs]
    failures = []

    def run(index):
        for _ in range(10):
            if not torch.allclose(model(inputs[index]).logits, want[index], atol=1e-5):
                failures.append(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(inputs))]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not failures


def test_a_copy_is_independent():
    model = tiny.adapted(prompt_length=3)
    want = model(tiny.ids()).logits
    clone = copy.deepcopy(model)
    tiny.disturb(clone, seed=5)
    assert torch.equal(model(tiny.ids()).logits, want)
    assert not torch.allclose(clone(tiny.ids()).logits, want, atol=1e-4)


def test_modules_that_use_the_interface_are_recognised():
    layer = tiny.llama().model.layers[0]
    assert attention.uses_attention_interface(layer.self_attn)
    assert not attention.uses_attention_interface(layer.mlp)


def test_an_interrupted_pass_hides_no_later_no_op(monkeypatch):
    """The kernel of a layer ran, then its pass broke off; the next pass bypasses the kernel altogether."""
    model = tiny.adapted(prompt_length=3)
    layer = model.base_model.model.model.layers[-1].self_attn
    handle = layer.o_proj.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(tiny.ids())
    handle.remove()
    monkeypatch.setattr(layer, "forward", lambda hidden_states, **kwargs: (hidden_states, None))
    with pytest.raises(RuntimeError, match=r"layers\.3\.self_attn' had no effect"):
        layer(torch.zeros(1, 2, 64))
