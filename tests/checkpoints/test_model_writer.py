"""A model written file by file is the model."""

import json

import torch
from safetensors.torch import load_file

from llama_adapter.checkpoints.model_writer import write_model

WEIGHTS = {f"w{index}": torch.randn(100, 10) for index in range(5)}
PLAN = {name: tensor.to("meta") for name, tensor in WEIGHTS.items()}


def test_files_stay_below_the_limit_and_the_index_finds_all(tmp_path):
    asked = []

    def make(names):
        asked.append(list(names))
        return {name: WEIGHTS[name] for name in names}

    write_model(tmp_path, PLAN, make, 9000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert [len(names) for names in asked] == [2, 2, 1]
    for name, tensor in WEIGHTS.items():
        assert torch.equal(load_file(tmp_path / index["weight_map"][name])[name], tensor)


def test_one_file_needs_no_index(tmp_path):
    write_model(tmp_path, PLAN, lambda names: {name: WEIGHTS[name] for name in names}, 10**9)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
