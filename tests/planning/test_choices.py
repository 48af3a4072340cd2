"""Other ways to do a run, and which of them is advised."""

import pytest
import torch
from peft import LoraConfig

from llama_adapter.data import DataConfig, SourceConfig
from llama_adapter.hardware import Device, find_device
from llama_adapter.models import BaseModelConfig
from llama_adapter.planning import PlanConfig
from llama_adapter.planning.choices import Choice, advice, compare
from llama_adapter.planning.device_memory import device_memory, model_sizes, usable_bytes
from llama_adapter.planning.simulation import POLICIES, Simulation
from llama_adapter.planning.workload import stated_workload
from llama_adapter.training import TrainingConfig
from tests.planning.small import write_base


def device(memory_gib):
    """A GPU that differs from a H100 in its memory only."""
    return Device(**{**vars(find_device("h100")), "memory_gib": memory_gib})


@pytest.fixture(scope="module")
def simulation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_base(folder / "base", torch.float32)
    return Simulation(
        PlanConfig(
            base=BaseModelConfig(name_or_path=str(folder / "base")),
            adapter=LoraConfig(r=8, target_modules=["q_proj", "v_proj"]),
            data=DataConfig(train=[SourceConfig(path="none.jsonl")]),
            training=TrainingConfig(
                per_device_train_batch_size=4, use_cpu=True, output_dir=str(folder / "out")
            ),
        )
    )


WORK = stated_workload(64, 100, 64)


def timer(variant, rows, sharing, sizes, quantisation):
    return 2.0 if variant.checkpointing in ("mlp", "layer") else 1.0


def test_every_precision_policy_and_sharing_is_there(simulation):
    found = compare(simulation, WORK, device(80), 2, timer)
    kinds = {(one.precision, one.checkpointing, one.sharing) for one in found}
    assert len(kinds) == len(found)
    assert {"fp32", "bf16", "int8 base", "nf4 base"} == {one.precision for one in found}
    assert set(POLICIES) == {one.checkpointing for one in found}
    assert {"ddp", "fsdp2"} == {one.sharing for one in found if one.precision == "bf16"}
    own = [one for one in found if not one.options]
    assert [(one.precision, one.checkpointing, one.sharing) for one in own] == [("fp32", "selective", "ddp")]
    assert {one.sharing for one in compare(simulation, WORK, find_device("cpu"), 1, timer)} == {"single"}


def test_memory_is_that_of_a_simulation(simulation):
    variant = simulation.configured
    sizes = model_sizes(simulation.meta_model(variant.dtype))
    exact = device_memory(simulation.cost(variant, WORK.heaviest(4)), sizes, device(80))
    (own,) = [one for one in compare(simulation, WORK, device(80), 1, timer) if not one.options]
    assert own.memory_bytes == sum(exact.values())


def test_the_largest_batch_fits_and_one_row_more_does_not(simulation):
    small = device(0.63)
    variant = simulation.configured
    sizes = model_sizes(simulation.meta_model(variant.dtype))
    (own,) = [
        one
        for one in compare(simulation, WORK, small, 1, timer)
        if one.precision == "fp32" and one.checkpointing == "selective"
    ]
    assert own.fits
    assert own.largest > 4

    def used(rows):
        return sum(device_memory(simulation.cost(variant, WORK.heaviest(rows)), sizes, small).values())

    limit = usable_bytes(small)
    assert used(own.largest - 1) <= limit
    assert used(own.largest + 2) > limit


def test_a_batch_that_does_not_fit_is_made_smaller_until_it_does(simulation):
    variant = simulation.configured
    sizes = model_sizes(simulation.meta_model(variant.dtype))

    def used(rows, gpu):
        return sum(device_memory(simulation.cost(variant, WORK.heaviest(rows)), sizes, gpu).values())

    limit = (used(2, device(1)) + used(3, device(1))) / 2
    tight = device(limit / (1 - 0.015) / 2**30)
    found = compare(simulation, WORK, tight, 1, timer)
    (own,) = [one for one in found if one.precision == "fp32" and one.checkpointing == "selective"]
    rows, accumulation = own.options
    assert rows == "--training.per-device-train-batch-size 2"
    assert accumulation == "--training.gradient-accumulation-steps 2", "4 rows per step, as before"
    assert (own.size, own.largest, own.fits) == (2, 2, True)
    assert own.memory_bytes == used(2, tight)
    nothing = compare(simulation, WORK, device(0.1), 1, timer)
    assert {(one.size, one.largest, one.fits) for one in nothing} == {(1, 0, False)}


def test_what_fits_comes_first_and_then_what_is_fast(simulation):
    found = compare(simulation, WORK, device(0.62), 1, timer)
    fits = [one.fits for one in found]
    assert fits == sorted(fits, reverse=True)
    seconds = [one.seconds_per_epoch for one in found if one.fits]
    assert seconds == sorted(seconds)


def choice(fits, seconds, *options, rows=4):
    return Choice(
        precision="bf16",
        checkpointing="none",
        sharing="single",
        size=rows,
        memory_bytes=1,
        fits=fits,
        largest=rows if fits else 0,
        seconds_per_epoch=seconds,
        options=list(options),
    )


def test_advice_is_the_fewest_changes_then_the_fastest():
    slow, fast, two = choice(True, 3.0, "--a"), choice(True, 2.0, "--b"), choice(True, 1.0, "--a", "--b")
    smaller = choice(True, 0.5, "--rows 1", rows=1)
    not_it = choice(False, 0.1, "--c")
    quantised = choice(True, 0.1, "--base.quantization nf4")
    assert advice([quantised, slow, fast, two, smaller, not_it], 4) is fast
    assert advice([quantised, smaller], 4) is smaller, "other weights are the last resort"
    assert advice([quantised, not_it], 4) is quantised
    assert advice([smaller, not_it], 4) is smaller
    assert advice([not_it, choice(True, 1.0)], 4) is None
