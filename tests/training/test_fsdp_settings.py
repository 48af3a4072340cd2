"""What is settled before FSDP is set up, and the precision in which gradients are added up."""

import json
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from transformers import TrainingArguments

from llama_adapter.conditioning import Conditioner
from llama_adapter.errors import UserError
from llama_adapter.training.fsdp_settings import check_shardable, reduce_in_fp32, settle_fsdp
from llama_adapter.training.groups import ParameterGroups
from llama_adapter.training.parts import TrainedParts


def settled(**settings):
    made = Mock(spec=TrainingArguments)
    made.configure_mock(**{"fsdp": True, "fsdp_config": None, "save_only_model": False, **settings})
    settle_fsdp(made)
    return made.fsdp_config


def accelerated(**state):
    made = Mock(spec=Accelerator)
    made.configure_mock(state=SimpleNamespace(**state), distributed_type=DistributedType.FSDP)
    return made


def test_checkpoints_are_kept_in_shards_unless_told_otherwise():
    assert settled() == {"state_dict_type": "SHARDED_STATE_DICT"}
    assert settled(fsdp_config={"fsdp_state_dict_type": "FULL_STATE_DICT"}) == {
        "state_dict_type": "FULL_STATE_DICT"
    }
    assert settled(save_only_model=True) == {}
    assert settled(fsdp=None) is None


def test_a_file_of_settings(tmp_path):
    path = tmp_path / "fsdp.json"
    path.write_text(json.dumps({"fsdp_cpu_offload": True}))
    assert settled(fsdp_config=str(path)) == {"cpu_offload": True, "state_dict_type": "SHARDED_STATE_DICT"}
    path.write_text("[]")
    with pytest.raises(UserError, match="holds list. Use a JSON object"):
        settled(fsdp_config=str(path))
    with pytest.raises(UserError, match="nowhere.json' cannot be read"):
        settled(fsdp_config="nowhere.json")


def test_the_first_version_is_refused():
    with pytest.raises(UserError, match="fsdp_config.version=1 is the first FSDP"):
        settled(fsdp_config={"version": 1})


def test_gradients_are_added_up_in_fp32():
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    accelerator = accelerated(fsdp_plugin=plugin)
    reduce_in_fp32(accelerator)
    assert plugin.mixed_precision_policy is None
    plugin.set_mixed_precision("bf16")
    assert plugin.mixed_precision_policy.reduce_dtype is torch.bfloat16  # as accelerate has it
    reduce_in_fp32(accelerator)
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (
        torch.bfloat16,
        torch.float32,
        None,
    )
    reduce_in_fp32(accelerated())


def test_what_lies_beside_the_model_is_refused():
    text = TrainedParts(nn.Linear(2, 2))
    check_shardable(accelerated(), text, ParameterGroups(text))
    conditioner = Mock(spec=Conditioner)
    seeing = replace(text, conditioner=conditioner)
    with pytest.raises(UserError, match="is kept beside it. Leave fsdp out"):
        check_shardable(accelerated(), seeing, ParameterGroups(text))
    groups = ParameterGroups(text)
    groups.members.append(("images", {}))
    with pytest.raises(UserError, match=r"meets groups for \['images'\] records"):
        check_shardable(accelerated(), text, groups)
    check_shardable(Accelerator(cpu=True), seeing, groups)
