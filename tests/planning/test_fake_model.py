"""Models without content: the same parameters, ties and devices as real ones."""

import pytest
import torch
from peft import LoraConfig
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import LlamaConfig

from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, attach_adapter, load_base_config
from llama_adapter.planning.fake_model import base_dtype, build_on_meta, to_fake_cpu
from llama_adapter.training import TrainingConfig
from llama_adapter.training.run import TrainConfig
from tests.tiny import tiny_llama

LORA = LoraConfig(r=4, target_modules=["q_proj"])


def run(folder, dtype="auto"):
    return TrainConfig(
        base=BaseModelConfig(name_or_path=str(folder), dtype=dtype),
        adapter=LORA,
        data=DataConfig(train=[SourceConfig(path="none.jsonl")]),
        training=TrainingConfig(output_dir="run", use_cpu=True),
    )


@pytest.mark.parametrize("tied", [False, True])
def test_same_parameters_as_a_real_model_and_ties_stay(tied, tmp_path):
    real = tiny_llama(tie_word_embeddings=tied)
    real.config.save_pretrained(tmp_path)
    config = run(tmp_path)
    fake = to_fake_cpu(
        build_on_meta(load_base_config(config.base), config, torch.float32),
        FakeTensorMode(allow_non_fake_inputs=True),
    )
    adapted = attach_adapter(real.requires_grad_(False), LORA)
    expected = {name: (p.shape, p.dtype, p.requires_grad) for name, p in adapted.named_parameters()}
    found = {name: (p.shape, p.dtype, p.requires_grad) for name, p in fake.named_parameters()}
    assert found == expected
    assert all(isinstance(tensor, FakeTensor) for tensor in [*fake.parameters(), *fake.buffers()])
    assert {tensor.device.type for tensor in [*fake.parameters(), *fake.buffers()]} == {"cpu"}
    base = fake.get_base_model()
    assert (base.get_output_embeddings().weight is base.get_input_embeddings().weight) is tied


def test_the_configuration_stays_as_it_was_read(tmp_path):
    tiny_llama().config.save_pretrained(tmp_path)
    config = run(tmp_path)
    read = load_base_config(config.base)
    before = read.to_dict()
    model = build_on_meta(read, config, torch.bfloat16)
    assert next(model.parameters()).dtype is torch.bfloat16
    assert read.to_dict() == before


def test_the_precision_asked_for_wins_over_the_saved_one():
    saved = LlamaConfig(dtype=torch.bfloat16)
    assert base_dtype(BaseModelConfig(name_or_path="x"), saved) is torch.bfloat16
    assert base_dtype(BaseModelConfig(name_or_path="x", dtype="fp32"), saved) is torch.float32
    assert base_dtype(BaseModelConfig(name_or_path="x"), LlamaConfig()) is torch.float32


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config.json"):
        load_base_config(BaseModelConfig(name_or_path=str(tmp_path)))


def test_a_damaged_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no such model"}')
    with pytest.raises(UserError, match=r"could not be read.*Set base.name_or_path"):
        load_base_config(BaseModelConfig(name_or_path=str(tmp_path)))
