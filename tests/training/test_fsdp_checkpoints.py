"""Checkpoints of sharded runs: complete or absent, read by any number of processes, gathered at the end.

Tolerances as in ``test_fsdp``: fp32 sums in another order.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llama_adapter.errors import UserError
from llama_adapter.training import checkpoint as files
from sphinx_ft.model import SphinxForConditionalGeneration
from tests.training.sharded_runs import assert_equal, launch, one_process, planned

SAVING = {"save_strategy": "steps", "save_steps": 2.0}
GATHERED = {"fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}


def assert_same_folder(folder, other):
    """Two folders of models have the same files, with the same tensors to ``test_fsdp``'s tolerance."""
    inside = [{path.name for path in one.iterdir()} - {files.MANIFEST} for one in (folder, other)]
    assert inside[0] == inside[1]
    configs = [json.loads((one / "config.json").read_text()) for one in (folder, other)]
    assert configs[0] == configs[1]
    tensors = [load_file(one / "model.safetensors") for one in (folder, other)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, value in tensors[0].items():
        torch.testing.assert_close(value, tensors[1][name], rtol=1e-5, atol=1e-5)


def assert_holds(model, weights):
    """A loaded model has exactly these weights."""
    loaded = dict(model.named_parameters())
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run of two processes, and the same by one: folder, results."""
    folder = tmp_path_factory.mktemp("pair")
    plan = {name: planned(name, 2, save=True, **SAVING) for name in ("llama", "adapter")}
    sharded = launch(2, folder, plan)["llama"]
    return folder, sharded, one_process("llama", folder, 2, save=True, **SAVING)


def test_two_processes_equal_one_and_hold_half_each(pair):
    _, sharded, alone = pair
    assert min(sharded["norms"]) > 1.0  # gradients were clipped
    assert_equal(sharded, alone)
    assert sharded["bytes"] == pytest.approx(alone["bytes"] / 2, rel=0.01)
    assert sharded["optimizer_bytes"] == pytest.approx(alone["optimizer_bytes"] / 2, rel=0.01)


def test_checkpoints_are_kept_in_shards_and_complete(pair):
    folder = pair[0] / "llama" / "checkpoint-2"
    assert files.defect(folder) is None
    names = set(files.read_manifest(folder)["files"])
    for part in ("pytorch_model_fsdp_0", "optimizer_0"):
        assert {f"{part}/.metadata", f"{part}/__0_0.distcp", f"{part}/__1_0.distcp"} <= names
    assert not {"model.safetensors", "pytorch_model_fsdp.bin", "optimizer.bin"} & names
    shard = folder / "optimizer_0" / "__1_0.distcp"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert "optimizer_0/__1_0.distcp has" in files.defect(folder)
    shard.write_bytes(content)


def test_the_result_is_one_folder_as_one_process_saves_it(pair):
    folder, sharded, _ = pair
    trained = folder / "llama" / "trained"
    assert files.defect(trained) is None
    assert_same_folder(trained, folder / "llama-alone" / "trained")
    assert_holds(AutoModelForCausalLM.from_pretrained(trained), sharded["weights"])


def test_of_an_adapter_only_the_adapter_is_saved(pair):
    folder = pair[0]
    one_process("adapter", folder, 2, save=True)
    found = [folder / run / "trained" for run in ("adapter", "adapter-alone")]
    files_of = [{path.name for path in one.iterdir()} for one in found]
    assert files_of[0] == files_of[1]
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= files_of[0]
    sharded, alone = (load_file(one / "adapter_model.safetensors") for one in found)
    assert sharded.keys() == alone.keys()
    for name, value in sharded.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="by a run with fsdp=True, and this one has fsdp=False"):
        one_process("adapter", folder, 2, resume="adapter/checkpoint-2")


def test_one_process_goes_on_from_shards_of_two(pair, caplog):
    folder, sharded, _ = pair
    assert_equal(one_process("llama", folder, 2, resume="llama/checkpoint-2"), sharded)
    assert "sees other batches" not in caplog.text


def test_another_global_batch_is_told(pair, caplog):
    one_process("llama", pair[0], 4, resume="llama/checkpoint-2")
    assert "sees other batches" not in caplog.text
    one_process("llama", pair[0], 4, resume="llama/checkpoint-2", per_device_train_batch_size=1, max_steps=3)
    assert "per_device_train_batch_size was 2" in caplog.text


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Runs of four processes, of one row each and two batches a step, then two that go on from them."""
    folder = tmp_path_factory.mktemp("four")
    names = ("llama", "tied", "sphinx_moe")  # of which "tied" has one matrix under two names
    sharded = launch(4, folder, {name: planned(name, 4, save=True, **SAVING) for name in names})
    plain = one_process("sphinx_moe", folder, 8, save=True, **SAVING)
    resumed = {name: planned(name, 2, 4, resume=f"{name}/checkpoint-2") for name in names}
    plan = {f"{name} resumed": run for name, run in resumed.items()}
    plan["from plain"] = planned("sphinx_moe", 2, 4, resume="sphinx_moe-alone/checkpoint-2")
    plan["gathered"] = planned("sphinx_moe", 2, 4, save=True, **SAVING, **GATHERED)
    plan["gathered resumed"] = planned("sphinx_moe", 2, 4, resume="gathered/checkpoint-2", **GATHERED)
    return folder, sharded | launch(2, folder, plan) | {"plain": plain}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "tied", "sphinx_moe"])
def test_two_and_one_go_on_from_four(four, name):
    folder, results = four
    assert_equal(results[f"{name} resumed"], results[name])
    assert_equal(one_process(name, folder, 8, resume=f"{name}/checkpoint-2"), results[name])


@pytest.mark.slow
def test_tied_weights_are_kept_once(four):
    folder, results = four
    tensors = load_file(folder / "tied" / "trained" / "model.safetensors")
    assert "lm_head.weight" not in tensors
    model = AutoModelForCausalLM.from_pretrained(folder / "tied" / "trained")
    assert_holds(model, results["tied"]["weights"])


@pytest.mark.slow
def test_two_go_on_from_one(four):
    assert_equal(four[1]["from plain"], four[1]["plain"])


@pytest.mark.slow
def test_gathered_checkpoints_serve_as_well(four):
    folder, results = four
    assert_equal(results["gathered resumed"], results["gathered"])
    assert_equal(results["gathered"], results["plain"])
    assert_equal(one_process("sphinx_moe", folder, 8, resume="gathered/checkpoint-2"), results["plain"])


@pytest.mark.slow
def test_a_mixture_that_sees_becomes_one_folder(four):
    folder, results = four
    trained = folder / "sphinx_moe" / "trained"
    assert_same_folder(trained, folder / "sphinx_moe-alone" / "trained")
    assert_holds(SphinxForConditionalGeneration.from_pretrained(trained), results["sphinx_moe"]["weights"])
