import warnings

import pytest
from transformers import FalconConfig, FalconForCausalLM, StableLmConfig, StableLmForCausalLM

from llama_adapter import UserError
from llama_adapter.adapters.families import FAMILIES, model_type_of, supported, warn_if_untested
from tests.adapters import tiny

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def test_supported_lists_the_types_with_a_place_for_a_part():
    assert "llama" in supported("prompts")
    assert "falcon" not in supported("prompts")
    assert "falcon" in supported("mlp")
    assert "mixtral" not in supported("mlp")
    assert set(supported("norms")) == set(FAMILIES)


def test_a_model_outside_the_interface_is_refused_with_what_works():
    with pytest.raises(
        UserError, match=r"FalconForCausalLM .*'falcon'.* cannot carry prompts.*interface.*llama"
    ):
        tiny.adapted(FalconForCausalLM(FalconConfig(**SMALL)), prompt_length=3)


def test_an_untested_type_is_adapted_with_a_warning():
    model = StableLmForCausalLM(StableLmConfig(**SMALL, intermediate_size=48, num_key_value_heads=2))
    with pytest.warns(UserWarning, match=r"No test runs model type 'stablelm'"):
        tiny.adapted(model, prompt_length=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_untested(tiny.llama())


def test_the_type_is_the_configs():
    assert model_type_of(tiny.llama()) == "llama"
