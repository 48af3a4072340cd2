"""The published order of an epoch and the published learning rates, beside those of the released code."""

import json

import numpy as np
import pytest

from llama_adapter.data import SourceConfig
from llama_adapter.data.batching import BatchRules
from llama_adapter.data.epoch_plan import EpochLayout, EpochPlan
from llama_adapter.data.sources import canonical_rows, source_plans
from llama_adapter.errors import UserError
from llama_adapter.training.loading import RankBatches
from llama_adapter.training.schedule import PublishedSchedule
from tests.sphinx_ft.golden_cases import GOLDEN

FACTS = json.loads((GOLDEN / "sphinx_dialog_sampler_lr.json").read_text())["facts"]


def layout_of(case):
    kinds = np.repeat(np.arange(len(case["group_sizes"])), case["group_sizes"])
    return EpochLayout(kinds=kinds, sizes=np.arange(len(kinds)), accumulation=case["accum"])


@pytest.mark.parametrize("case", FACTS["sampler"])
def test_every_rank_has_the_published_rows_in_the_published_order(case):
    rules = BatchRules(rows=case["batch_size"], ranks=case["num_replicas"], seed=case["seed"])
    for rank, wanted in enumerate(case["ranks"]):
        batches = RankBatches(np.ones(sum(case["group_sizes"]), dtype=int), rules, rank, layout_of(case))
        batches.set_epoch(case["epoch"])
        rows = [row for batch in list(batches)[case["start_iter"] :] for row in batch]
        assert rows == wanted


def test_several_ranks_take_the_steps_of_one():
    """As many rows in a step, so the same rows in each, in the same order."""
    lengths, kinds = np.ones(61, dtype=int), np.arange(61) % 3
    sizes = np.random.default_rng(0).integers(1, 9, 61)
    steps = []
    for ranks, accumulation in ((1, 4), (2, 2), (4, 1)):
        layout = EpochLayout(kinds=kinds, sizes=sizes, accumulation=accumulation)
        plan = EpochPlan(lengths, BatchRules(rows=2, ranks=ranks), layout).batches(3)
        steps.append([sum(plan[at : at + 4], []) for at in range(0, len(plan), 4)])
        assert all(len({kinds[row] for row in step}) == 1 for step in steps[-1])
        assert all(sizes[step].tolist() == sorted(sizes[step]) for step in steps[-1])
    assert steps[0] == steps[1] == steps[2]
    used = {row for step in steps[0] for row in step}
    for kind in range(3):
        rows = np.flatnonzero(kinds == kind)
        left_out = [sizes[row] for row in rows if row not in used]
        assert len(left_out) == len(rows) % 8
        assert min(left_out) >= max(sizes[row] for row in rows if row in used)


def test_a_step_larger_than_every_type_is_named():
    layout = EpochLayout(kinds=np.arange(6) % 3, sizes=np.ones(6, dtype=int), accumulation=2)
    with pytest.raises(UserError, match="6 rows fill no optimiser step of 4 rows of one type"):
        EpochPlan(np.ones(6, dtype=int), BatchRules(rows=2), layout).count  # noqa: B018


@pytest.mark.parametrize(("name", "unit"), [("lr_epoch", "epochs"), ("lr_iter", "iters")])
def test_learning_rates_are_the_published_ones(name, unit):
    given = FACTS[name]["args"]
    schedule = PublishedSchedule(
        peak=given["lr"],
        minimum=given["min_lr"],
        warmup_epochs=given[f"warmup_{unit}"],
        epochs=given["epochs" if unit == "epochs" else "lr_decay_iters"],
    )
    for at, rate in FACTS[name]["values"]:
        assert schedule.rate(at) == pytest.approx(rate, rel=1e-12, abs=1e-20)


def test_items_are_sorted_by_their_characters(tmp_path):
    """What the dialogs are, by type, in the published order."""
    places, group = [], {}
    for kind, numbers in FACTS["group_indices"].items():
        group |= dict.fromkeys(numbers, kind)
    for number, beginning in enumerate(FACTS["order_after_length_sort"]):
        (item,) = [one for one in FACTS["rendered"] if beginning in one["conversations"][0]["value"]]
        shown = {"image": "a.jpg"} if group[number] == "image_text" else {}
        places.append(
            {"kind": group[number], "conversations": item["conversations"], "number": number, **shown}
        )
    path = tmp_path / "items.json"
    path.write_text(json.dumps(places[::-1]))
    source = SourceConfig(path=str(path), format="accessory")
    records = list(canonical_rows(source_plans(source)))
    lengths = np.array([record["characters"] for record in records])
    kinds = np.array([one["kind"] == "image_text" for one in places[::-1]]).astype(int)
    layout = EpochLayout(kinds=kinds, sizes=lengths)
    (steps,) = [EpochPlan(lengths, BatchRules(rows=1), layout)._rows]
    order = [len(places) - 1 - row for rows in steps for row in rows.tolist()]
    assert order == [0, 1, 2, 3, 4]
