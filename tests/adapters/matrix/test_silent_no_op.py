"""Ways in which an adapter could do nothing without a word.

Models that drop their kwargs, such as SigLIP, are columns of the support matrix.
"""

import re

import pytest
import torch
from transformers import AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llama_adapter import attention
from tests.adapters.matrix.subjects import SUBJECTS, attach, attention_function, disturb, relative_error
from tests.adapters.matrix.tiny_models import output

LLAMA = SUBJECTS["llama"]


@pytest.fixture
def override():
    """Puts a function over a registered one, for this process only, as users patch a kernel."""
    touched = []

    def put(key):
        def patched(module, *args, **kwargs):
            return sdpa_attention_forward(module, *args, **kwargs)

        ALL_ATTENTION_FUNCTIONS[key] = patched
        touched.append(key)

    yield put
    for key in touched:
        del ALL_ATTENTION_FUNCTIONS[key]


@torch.no_grad()
def test_a_function_put_over_the_registered_one_before_attaching(override):
    override("sdpa")
    wanted = output(LLAMA.base("sdpa"), LLAMA.inputs())
    model = LLAMA.adapt(LLAMA.prompts(), "sdpa")
    assert relative_error(output(model, LLAMA.inputs()), wanted) > 0.01


@torch.no_grad()
def test_a_function_put_over_the_registered_one_after_attaching(override):
    model = LLAMA.adapt(LLAMA.prompts(), "sdpa")
    wanted = output(model, LLAMA.inputs())
    override("sdpa")
    with pytest.raises(RuntimeError, match=r"layers\.0\.self_attn.*'sdpa'") as caught:
        output(model, LLAMA.inputs())
    advice = re.search(r"decorate_key\('sdpa'\)", str(caught.value))
    assert advice
    attention.decorate_key("sdpa")
    assert relative_error(output(model, LLAMA.inputs()), wanted) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_late_function_is_no_error_while_the_adapter_is_off(implementation):
    """Only prompts that should have run are missed."""
    model = LLAMA.adapt(LLAMA.prompts(prompt_layers=1), implementation)
    wanted = output(LLAMA.base(implementation), LLAMA.inputs())

    def late(module, *args, **kwargs):
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionMaskInterface.register("late", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    try:
        with attention_function(model.base_model.model, "late", late):
            with model.disable_adapter():
                assert relative_error(output(model, LLAMA.inputs()), wanted) < 1e-4
            with pytest.raises(RuntimeError, match=r"layers\.2\.self_attn"):
                output(model, LLAMA.inputs())
    finally:
        del AttentionMaskInterface._global_mapping["late"]


@torch.no_grad()
def test_a_missed_layer_is_noticed_beside_layers_that_ran():
    """One layer on a kernel of its own: its error names it, though the others' prompts were added."""
    model = LLAMA.adapt(LLAMA.prompts())
    layer = model.base_model.model.model.layers[1].self_attn

    def bypass(hidden_states, *args, **kwargs):
        return layer.o_proj(hidden_states), None

    layer.forward = bypass
    with pytest.raises(RuntimeError, match=r"layers\.1\.self_attn.*LlamaAttention"):
        output(model, LLAMA.inputs())


@torch.no_grad()
def test_two_adapted_models_of_one_type_do_not_mix():
    """The seam is shared by all models of the process; the prompts are not."""
    first = LLAMA.adapt(LLAMA.prompts())
    second = attach(LLAMA.base(), LLAMA.prompts(prompt_length=5))
    disturb(second, seed=8)
    wanted = [output(model, LLAMA.inputs()) for model in (first, second)]
    assert relative_error(*wanted) > 0.01
    second.unload()
    assert torch.equal(output(first, LLAMA.inputs()), wanted[0])
