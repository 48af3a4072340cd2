"""Batches by token budget and packed, through real runs of the trainer."""

import datasets
import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from llama_adapter.data.batching import BatchRules
from llama_adapter.errors import UserError
from llama_adapter.training.loading import FillingCollator, RankBatches

KINDS = ["tokens", "packed"]


class Seen(TrainerCallback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def watch(made):
    """Names of the records of every batch that reaches the model, and the shapes of the batches."""
    names, shapes, forward = [], [], made.token_losses

    def watched(model, inputs, *args, **kwargs):
        names.append(list(inputs["record_id"]))
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(model, inputs, *args, **kwargs)

    made.token_losses = watched
    return names, shapes


def names_of(rows):
    return sorted(row["record_id"] for row in rows)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_holds_every_record_once_within_the_budget(trainer, records, kind):
    rows = records(20)
    made = trainer(train=rows, batching=kind, tokens_per_batch=30, num_train_epochs=2, max_steps=-1)
    names, shapes = watch(made)
    made.train()
    half = len(names) // 2
    for epoch in (names[:half], names[half:]):
        assert sorted(name for batch in epoch for name in batch) == names_of(rows)
    assert names[:half] != names[half:]
    assert all(height * width <= 30 for height, width in shapes)
    assert {height for height, _ in shapes} == {1} if kind == "packed" else max(shapes)[0] > 1
    assert made.state.global_step == len(names)
    assert made.state.epoch == 2


def test_one_step_over_all_records_has_the_same_gradient_however_they_are_batched(trainer, records):
    """The token mean over a step does not depend on its batches; here a step is an epoch."""
    rows, found = records(13), {}
    for kind in ["rows", *KINDS]:
        budget = {} if kind == "rows" else {"tokens_per_batch": 30}
        made = trainer(
            train=rows, batching=kind, gradient_accumulation_steps=50, max_steps=1, folder=kind, **budget
        )
        seen = Seen()
        made.add_callback(seen)
        made.train()
        found[kind] = seen.gradients[0], made.state.log_history[0]["loss"]
    for kind in KINDS:
        assert found[kind][1] == pytest.approx(found["rows"][1], rel=1e-5)
        for name, gradient in found["rows"][0].items():
            torch.testing.assert_close(found[kind][0][name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_tables_are_trained_like_lists(trainer, records, kind):
    rows = records(9)
    losses = []
    for form, data in (("list", rows), ("table", datasets.Dataset.from_list(rows))):
        made = trainer(train=data, batching=kind, tokens_per_batch=24, folder=form)
        made.train()
        losses.append([record["loss"] for record in made.state.log_history if "loss" in record])
    assert losses[0] == losses[1]


def test_workers_load_the_same_batches(trainer, records):
    seen = []
    for workers in (0, 1):
        made = trainer(
            train=records(9), batching="packed", tokens_per_batch=24, dataloader_num_workers=workers
        )
        seen.append([batch["record_id"] for batch in made.get_train_dataloader()])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("step", [5, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_in_the_middle_of_an_epoch_sees_what_it_would_have_seen(trainer, records, kind, step):
    settings = {
        "train": records(30),
        "batching": kind,
        "tokens_per_batch": 24,
        "gradient_accumulation_steps": 2,
        "max_steps": 12,
        "save_strategy": "steps",
        "save_steps": 5,
        "folder": kind,
    }
    straight = trainer(**settings)
    names, _ = watch(straight)
    straight.train()
    per_epoch = -(-len(straight.train_batches) // 2)
    assert 5 < per_epoch < 10 < 2 * per_epoch  # the checkpoints lie inside the first and the second epoch
    resumed = trainer(**settings)
    again, _ = watch(resumed)
    resumed.train(resume_from_checkpoint=f"{straight.args.output_dir}/checkpoint-{step}")
    assert again == names[len(names) - len(again) :]
    assert len(again) > 2
    for (name, one), (_, other) in zip(
        straight.model.named_parameters(), resumed.model.named_parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_resuming_without_skipping_starts_the_epoch_again(trainer, records):
    settings = {
        "train": records(30),
        "batching": "tokens",
        "tokens_per_batch": 24,
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 4,
    }
    straight = trainer(**settings)
    names, _ = watch(straight)
    straight.train()
    resumed = trainer(**settings, ignore_data_skip=True)
    again, _ = watch(resumed)
    resumed.train(resume_from_checkpoint=f"{straight.args.output_dir}/checkpoint-4")
    assert again == names[:4]


def test_the_order_follows_the_data_seed(trainer, records):
    orders = []
    for settings in ({"data_seed": 1}, {"data_seed": 1, "seed": 9}, {"data_seed": 2}):
        made = trainer(train=records(20), batching="tokens", tokens_per_batch=24, **settings)
        orders.append([batch["record_id"] for batch in made.get_train_dataloader()])
    assert orders[0] == orders[1] != orders[2]


def test_without_a_budget_batches_hold_the_rows_of_mean_length(trainer, records):
    rows = records(40)
    lengths = np.array([len(row["input_ids"]) for row in rows])
    made = trainer(train=rows, batching="tokens", per_device_train_batch_size=4)
    assert made.train_batches.rules.tokens == round(4 * lengths.mean())
    made = trainer(train=rows, batching="packed", per_device_train_batch_size=1)
    assert made.train_batches.rules.tokens == lengths.max()


@pytest.mark.parametrize("kind", ["rows", *KINDS])
def test_evaluation_batches_are_sorted_and_the_mean_is_that_of_unsorted_ones(trainer, records, kind):
    rows = records(11, seed=4, name="eval.jsonl")
    budget = {} if kind == "rows" else {"tokens_per_batch": 30}
    made = trainer(evaluation=rows, batching=kind, per_device_eval_batch_size=3, **budget)
    names, shapes = watch(made)
    found = made.evaluate()
    assert sorted(name for batch in names for name in batch) == names_of(rows)
    widths = [width for _, width in shapes]
    assert widths == sorted(widths, reverse=True)
    assert all(height * width <= 30 for height, width in shapes) if budget else max(shapes)[0] == 3
    plain = trainer(evaluation=rows, per_device_eval_batch_size=3)
    plain._evaluation_rows = lambda given: None  # the host's loader
    wanted = plain.evaluate()
    assert found["eval_loss"] == pytest.approx(wanted["eval_loss"], rel=1e-6)
    assert found["eval_tokens"] == wanted["eval_tokens"]


def test_evaluation_keeps_its_order_where_rows_are_looked_at(trainer, records):
    rows = records(6, seed=4, name="eval.jsonl")
    made = trainer(evaluation=rows)
    names, _ = watch(made)
    made.compute_metrics = lambda prediction: {"rows": float(len(prediction.label_ids))}
    assert made.evaluate()["eval_rows"] == 6
    made.predict(rows)
    in_order = [row["record_id"] for row in rows]
    assert [name for batch in names for name in batch] == in_order * 2


def test_named_evaluation_sets(trainer, records):
    sets = {"short": records(3, seed=1), "long": records(5, seed=2)}
    metrics = trainer(evaluation=sets, batching="tokens", tokens_per_batch=30).evaluate()
    assert {"eval_short_loss", "eval_long_loss"} <= set(metrics)


def test_the_padding_of_every_window_is_logged(trainer, records):
    made = trainer(train=records(20), batching="tokens", tokens_per_batch=24, logging_steps=2)
    _, shapes = watch(made)
    made.train()
    logged = [record for record in made.state.log_history if "loss" in record]
    slots = sum(height * width for height, width in shapes)
    assert logged[-1]["padding_share"] < 0.3
    total = next(record for record in made.state.log_history if "train_loss" in record)
    assert total["padding_share"] == pytest.approx(1 - made.meter.total.tokens / slots)
    packed = trainer(train=records(20), batching="packed", tokens_per_batch=24)
    packed.train()
    assert all(record["padding_share"] == 0 for record in packed.state.log_history if "loss" in record)


def test_packed_batches_hand_positions_to_the_model_and_keep_the_rest(trainer, records):
    made = trainer(train=records(9), batching="packed", tokens_per_batch=24, max_steps=1)
    seen = {}
    made.model.register_forward_pre_hook(lambda m, args, kwargs: seen.update(kwargs), with_kwargs=True)
    made.train()
    assert set(seen) == {"input_ids", "position_ids", "use_cache"}
    assert seen["use_cache"] is False
    assert (seen["position_ids"] == 0).sum() > 1


def test_the_record_of_a_pack_that_went_wrong_is_named(trainer, records):
    rows = records(4)
    made = trainer(train=rows, batching="packed", tokens_per_batch=100)
    batch = next(iter(made.get_train_dataloader()))
    bad = batch["record_id"].index("train.jsonl:3")

    def poison(module, args, output):
        return output.masked_fill((batch["record_index"] == bad)[..., None], float("nan"))

    made.unwrapped.get_base_model().model.norm.register_forward_hook(poison)
    with pytest.raises(UserError, match=r"nan in step 1 on 1 of 4 records: train\.jsonl:3\. Try"):
        made.compute_loss(made.model, batch)


def test_a_rank_without_a_batch_takes_a_row_without_labels(collator, records):
    rows = records(2)
    collate = FillingCollator(collator, rows)
    assert (collate([])["labels"] == -100).all()
    assert collate([])["record_id"] == []
    assert collate([])["input_ids"].tolist() == [rows[0]["input_ids"]]
    assert torch.equal(collate(rows)["labels"], collator(rows)["labels"])


def test_ranks_share_a_plan_without_overlap():
    lengths = np.random.default_rng(0).integers(1, 40, 57)
    rules = BatchRules(tokens=90, ranks=3)
    ranks = [RankBatches(lengths, rules, rank) for rank in range(3)]
    for epoch in range(2):
        held = []
        for batches in ranks:
            batches.set_epoch(epoch)
            held.append(list(batches))
        assert [len(part) for part in held] == [len(ranks[0])] * 3
        assert sorted(row for part in held for batch in part for row in batch) == list(range(57))


def test_streamed_data_are_refused(trainer, records):
    stream = datasets.Dataset.from_list(records(4)).to_iterable_dataset()
    with pytest.raises(
        UserError, match=r"batching='tokens' .* plan an epoch .* Set batching=rows and .* streaming"
    ):
        trainer(train=stream, batching="tokens", tokens_per_batch=30)


def test_no_rows_are_refused(trainer):
    with pytest.raises(UserError, match=r"0 rows\. Use data with at least one usable record"):
        trainer(train=[], batching="tokens", tokens_per_batch=30).get_train_dataloader()


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schedule_counts_the_batches_of_the_plan(trainer, records, kind):
    made = trainer(
        train=records(20),
        batching=kind,
        tokens_per_batch=30,
        schedule="published",
        warmup_epochs=1,
        num_train_epochs=2,
        max_steps=-1,
        learning_rate=1e-2,
    )
    made.train()
    rates = [record["learning_rate"] for record in made.state.log_history if "learning_rate" in record]
    count = len(made.train_batches)
    assert rates[:count] == pytest.approx([1e-2 * step / count for step in range(count)])
    assert rates[count] == pytest.approx(1e-2)


def typed(rows):
    """Rows of two types, whose records have as many characters as tokens."""
    return datasets.Dataset.from_list(
        [
            {**row, "type": "ab"[number % 3 == 0], "characters": len(row["input_ids"])}
            for number, row in enumerate(rows)
        ]
    )


@pytest.mark.parametrize("types", ["apart", "published"])
def test_types_never_share_a_step_and_a_resumed_run_goes_on(trainer, records, types):
    rows = typed(records(26))
    kinds, sizes = dict(zip(rows["record_id"], rows["type"], strict=True)), rows["characters"]
    settings = {
        "train": rows,
        "types": types,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "max_steps": -1,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    straight = trainer(**settings)
    names, _ = watch(straight)
    straight.train()
    steps = [names[at] + names[at + 1] for at in range(0, len(names), 2)]
    assert all(len({kinds[name] for name in step}) == 1 for step in steps)
    assert {kinds[name] for name in sum(steps, [])} == {"a", "b"}
    half = sum(steps[: len(steps) // 2], [])
    if types == "published":  # 17 of a, 9 of b, steps of 4
        assert len(half) == len(set(half)) == 24
        for row in rows:
            largest = max(size for size, kind in zip(sizes, rows["type"], strict=True) if kind == row["type"])
            assert row["record_id"] in half or row["characters"] == largest
    else:
        assert sorted(half) == names_of(rows)
    resumed = trainer(**settings)
    again, _ = watch(resumed)
    resumed.train(resume_from_checkpoint=f"{straight.args.output_dir}/checkpoint-3")
    assert again == names[6:]


def test_published_order_has_a_fixed_number_of_rows(trainer, records):
    with pytest.raises(UserError, match="types='published'.*batching is 'tokens'"):
        trainer(train=typed(records(4)), types="published", batching="tokens")


@pytest.mark.parametrize("types", ["apart", "published"])
def test_types_must_be_there(trainer, records, types):
    made = trainer(train=records(4), types=types)
    with pytest.raises(UserError, match="the 4 rows have none. Give sources"):
        made.train()
