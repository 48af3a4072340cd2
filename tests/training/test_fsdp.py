"""FSDP2 in two and four processes equals one process, for every kind of model that is tuned as a whole.

The quick part is in ``test_fsdp_checkpoints``. Tolerance in fp32: 1e-5 relative for losses and norms, 1e-5
for weights; sums in another order. In bf16 the sharded run computes with bf16 weights where the other
computes under autocast: 1 % for losses.
"""

import pytest
import torch

from tests.training.sharded_runs import assert_equal, launch, one_process, planned

pytestmark = pytest.mark.slow
MIXTURES = {"mixtral", "sphinx_moe"}


def twin(name, folder, processes, accumulation=2):
    """Experts are balanced within a batch, so there the other run needs the same batches, not only rows."""
    return one_process(name, folder, accumulation * (processes if name in MIXTURES else 1))


@pytest.fixture(scope="module", params=[2, 4])
def launched(request, tmp_path_factory):
    """Number of processes, folder, results."""
    folder = tmp_path_factory.mktemp("fsdp")
    names = ["llama", "tied", "bf16", "mixtral", "sphinx", "sphinx_moe"]
    plan = {name: planned(name, request.param) for name in names}
    recomputing = {"fsdp_config": {"activation_checkpointing": True}}
    plan["recomputed"] = planned("llama", request.param, **recomputing)
    plan["layers recomputed"] = planned("llama", request.param, checkpointing="layer")
    return request.param, folder, launch(request.param, folder, plan)


@pytest.mark.parametrize("name", ["llama", "tied", "mixtral", "sphinx", "sphinx_moe"])
def test_a_model_is_trained_as_by_one_process(launched, name):
    processes, folder, results = launched
    assert_equal(results[name], twin(name, folder, processes))


@pytest.mark.parametrize("name", ["recomputed", "layers recomputed"])
def test_recomputed_layers_change_nothing(launched, name):
    assert_equal(launched[2][name], launched[2]["llama"])


def test_bf16_computes_with_weights_kept_in_fp32(launched):
    processes, folder, results = launched
    sharded, alone = results["bf16"], twin("bf16", folder, processes)
    assert {weight.dtype for weight in sharded["weights"].values()} == {torch.float32}
    assert sharded["losses"] == pytest.approx(alone["losses"], rel=1e-2)
    assert sharded["losses"] != pytest.approx(results["llama"]["losses"], rel=1e-6)
    assert sharded["norms"] == pytest.approx(alone["norms"], rel=5e-2)


@pytest.mark.parametrize("name", ["llama", "tied", "mixtral", "sphinx", "sphinx_moe"])
def test_each_process_holds_its_share(launched, name):
    processes, folder, results = launched
    alone = twin(name, folder, processes)
    # Small tensors are filled up to a whole number of rows per process.
    for what in ("bytes", "optimizer_bytes"):
        assert results[name][what] == pytest.approx(alone[what] / processes, rel=0.1)
