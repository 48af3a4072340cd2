"""What a conversion knows of the base model without loading it."""

import torch

from llama_adapter.checkpoints.adapter_base import AdapterBase
from tests.tiny import tiny_llama


def test_shapes_come_from_peft_and_the_fingerprint_from_the_real_embeddings(tmp_path):
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    config, shapes = AdapterBase(str(tmp_path)).adapter_shapes({"prompt_length": 3, "prompt_layers": 1})
    branch = "base_model.model.model.layers.1.self_attn.prompt_attention.zero_init_"
    assert shapes == {f"{branch}prompt.value": (3, 32), f"{branch}gate.value": (4, 1, 1)}
    first = model.get_input_embeddings().weight[10, 0].item()
    assert abs(config.base_fingerprint["embedding_sample"][0] - first) < 1e-4


def test_changes_are_undone_on_the_way_back(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    base = AdapterBase(str(tmp_path))
    for change, rows in (("query_rows", 32), ("key_rows", 16), ("same", 5)):
        tensor = torch.randn(rows, 3)
        assert torch.equal(base.to_official(base.to_ours(tensor, change), change), tensor)
    gate, scalar = torch.randn(1, 4, 1, 1), torch.randn(1)
    assert torch.equal(base.to_official(base.to_ours(gate, "gate"), "gate"), gate)
    assert torch.equal(base.to_official(base.to_ours(scalar, "gate"), "gate", scalar=True), scalar)


def test_key_rows_follow_the_key_heads(tmp_path):
    tiny_llama().save_pretrained(tmp_path)  # 4 query heads, 2 key heads, head size 8
    keys = AdapterBase(str(tmp_path)).to_ours(torch.arange(16.0), "key_rows")
    assert keys.tolist() == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]


def test_a_folder_without_weights_has_no_embeddings(tmp_path):
    tiny_llama().config.save_pretrained(tmp_path)
    assert AdapterBase(str(tmp_path)).embeddings() is None
