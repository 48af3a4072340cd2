"""params.json of every release becomes the config that its Hugging Face model has."""

import pytest

from llama_adapter.checkpoints.meta_params import check_params, llama_config
from llama_adapter.errors import UserError

LLAMA_1 = {
    "dim": 4096,
    "multiple_of": 256,
    "n_heads": 32,
    "n_layers": 32,
    "norm_eps": 1e-06,
    "vocab_size": -1,
}
LLAMA_2_70B = {
    "dim": 8192,
    "multiple_of": 4096,
    "ffn_dim_multiplier": 1.3,
    "n_heads": 64,
    "n_kv_heads": 8,
    "n_layers": 80,
    "norm_eps": 1e-05,
    "vocab_size": -1,
}
LLAMA_3 = {
    "dim": 4096,
    "n_heads": 32,
    "n_kv_heads": 8,
    "n_layers": 32,
    "norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "vocab_size": 128256,
}


def config(params, vocabulary=32000, inner=11008):
    return llama_config(params, vocabulary, inner, tied=False)


def test_llama_1_and_2():
    first, second = config(LLAMA_1), config(LLAMA_2_70B, inner=28672)
    assert (first.max_position_embeddings, first.num_key_value_heads, first.eos_token_id) == (2048, 32, 2)
    assert (second.max_position_embeddings, second.num_key_value_heads, second.head_dim) == (4096, 8, 128)
    assert first.rope_parameters["rope_theta"] == 10000.0
    assert (first.vocab_size, second.intermediate_size) == (32000, 28672)


@pytest.mark.parametrize(("dim", "factor"), [(4096, 8.0), (2048, 32.0)])
def test_llama_3_and_its_longer_successors(dim, factor):
    plain = config(LLAMA_3)
    assert (plain.rope_parameters["rope_theta"], plain.max_position_embeddings) == (500000.0, 8192)
    assert plain.bos_token_id == 128000
    longer = config(LLAMA_3 | {"use_scaled_rope": True, "dim": dim})
    assert longer.max_position_embeddings == 131072
    assert (longer.rope_parameters["rope_type"], longer.rope_parameters["factor"]) == ("llama3", factor)


def test_the_largest_llama_1_is_told_by_its_heads():
    largest = {"dim": 8192, "n_heads": 64, "n_layers": 80, "norm_eps": 1e-05, "vocab_size": -1}
    assert config(largest, inner=22016).max_position_embeddings == 2048


def test_accessory_multiplies_positions_where_transformers_divides():
    rope = config(LLAMA_1 | {"rope_scaling": 0.25, "max_seq_len": 8192}).rope_parameters
    assert (rope["rope_type"], rope["factor"]) == ("linear", 4.0)


def test_settings_that_lack_a_size_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"lack \['n_layers', 'n_heads', 'norm_eps', 'moe'\]"):
        check_params({"dim": 4}, tmp_path, ("moe",))
