"""The trainer against plain PyTorch: losses, gradients, evaluation, determinism, precision."""

import inspect
import json
import math
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback

from llama_adapter.errors import UserError
from llama_adapter.training import Trainer
from llama_adapter.training.guard import SKIPPED_STEPS
from llama_adapter.training.trainer import OVERRIDDEN, PRIVATE_ATTRIBUTES


class Gradients(TrainerCallback):
    """Keeps the gradients of every optimiser step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


class Weights(TrainerCallback):
    """Keeps the trained weights after every optimiser step."""

    def __init__(self, steps):
        self.steps = steps

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append(trainable(model))


def gradients_of(trainer):
    seen = Gradients()
    trainer.add_callback(seen)
    trainer.train()
    return seen.steps


def trainable(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def plain_losses(model, rows, collator):
    """Negative log-likelihoods of one batch by the textbook: full logits, shift, no reduction."""
    batch = collator(rows)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none", ignore_index=-100
    )


def labelled(rows):
    return sum(sum(label != -100 for label in row["labels"][1:]) for row in rows)


def test_every_overridden_method_still_has_the_expected_signature():
    for name, parameters in OVERRIDDEN.items():
        host = inspect.signature(getattr(transformers.Trainer, name))
        assert tuple(host.parameters)[1:] == parameters, name


def test_the_list_of_overridden_methods_is_complete():
    ours = {
        name
        for part in Trainer.__mro__[: Trainer.__mro__.index(transformers.Trainer)]
        for name, value in vars(part).items()
        if inspect.isfunction(value) and hasattr(transformers.Trainer, name) and name != "__init__"
    }
    assert ours == set(OVERRIDDEN)


def test_private_attributes_of_the_host_still_exist(trainer):
    made = trainer(max_steps=1)
    made.train()
    assert all(hasattr(made, name) for name in PRIVATE_ATTRIBUTES)


def test_loss_equals_the_models_own_and_the_textbook(trainer, records, collator):
    rows = records(4)
    made = trainer(train=rows, per_device_train_batch_size=4, max_steps=1, save_strategy="no")
    batch = collator(rows)
    model = made.model.eval()
    loss = made.compute_loss(model, batch, num_items_in_batch=labelled(rows))
    own = model(**{k: v for k, v in batch.items() if k != "record_id"}).loss
    textbook = plain_losses(model, rows, collator).sum() / labelled(rows)
    assert loss.item() == pytest.approx(own.item(), rel=1e-6)
    assert loss.item() == pytest.approx(textbook.item(), rel=1e-6)


@pytest.mark.parametrize("reduction", ["token", "published"])
def test_accumulation_of_small_batches(trainer, records, reduction):
    rows = records(8)
    counts = {labelled(rows[i : i + 2]) for i in range(0, 8, 2)}
    assert len(counts) > 1  # unequal label counts are the point
    common = {
        "train": rows,
        "max_steps": 1,
        "max_grad_norm": 0.0,
        "loss_reduction": reduction,
        "train_sampling_strategy": "sequential",
    }
    whole = gradients_of(trainer(per_device_train_batch_size=8, folder="whole", **common))[0]
    parts = gradients_of(
        trainer(per_device_train_batch_size=2, gradient_accumulation_steps=4, folder="parts", **common)
    )[0]
    difference = max((whole[name] - parts[name]).abs().max().item() for name in whole)
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    if reduction == "token":
        assert difference <= 1e-6 * largest
    else:
        assert difference > 1e-3 * largest  # a mean of batch means is another loss


def test_published_reduction_is_the_mean_of_batch_means(trainer, records, collator):
    rows = records(4)
    made = trainer(
        train=rows,
        max_steps=1,
        gradient_accumulation_steps=2,
        loss_reduction="published",
        train_sampling_strategy="sequential",
    )
    means = [
        plain_losses(made.model.eval(), rows[i : i + 2], collator).sum() / labelled(rows[i : i + 2])
        for i in (0, 2)
    ]
    made.train()
    logged = next(record["loss"] for record in made.state.log_history if "loss" in record)
    assert logged == pytest.approx(sum(mean.item() for mean in means) / 2, rel=1e-6)


def test_a_batch_without_any_label_trains_nothing_and_breaks_nothing(trainer, records):
    rows = [{**row, "labels": [-100] * len(row["labels"])} for row in records(4)]
    made = trainer(train=rows, max_steps=2)
    before = trainable(made.model)
    made.train()
    assert all(torch.equal(before[name], after) for name, after in trainable(made.model).items())
    assert made.state.log_history[0]["loss"] == 0.0


def test_evaluation_is_the_mean_over_all_labelled_tokens(trainer, records, collator):
    held_out = records(7, seed=3, name="eval.jsonl")
    made = trainer(evaluation=held_out, per_device_eval_batch_size=3)
    metrics = made.evaluate()
    expected = plain_losses(made.model, held_out, collator).double().sum().item() / labelled(held_out)
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(expected), rel=1e-6)
    assert metrics["eval_tokens"] == labelled(held_out)


def test_evaluation_does_not_depend_on_the_batch_size(trainer, records):
    held_out = records(7, seed=3)
    losses = [
        trainer(evaluation=held_out, per_device_eval_batch_size=size, folder=f"b{size}").evaluate()[
            "eval_loss"
        ]
        for size in (1, 2, 7)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_dropping_the_last_training_batch_does_not_drop_evaluation_records(trainer, records):
    held_out = records(7, seed=3)
    made = trainer(evaluation=held_out, per_device_eval_batch_size=3, dataloader_drop_last=True)
    assert made.evaluate()["eval_tokens"] == labelled(held_out)
    assert made.predict(held_out).metrics["test_tokens"] == labelled(held_out)
    assert made.args.dataloader_drop_last


def test_compute_metrics_sees_all_logits(trainer, records, adapted, collator):
    held_out = records(3, seed=3)
    made = trainer(evaluation=held_out, per_device_eval_batch_size=3)
    shapes = []

    def count(prediction):
        shapes.append(prediction.predictions.shape)
        return {"rows": len(prediction.predictions)}

    made.compute_metrics = count
    metrics = made.evaluate()
    width = max(len(row["input_ids"]) for row in held_out)
    assert shapes == [(3, width, made.model.config.vocab_size)]
    assert metrics["eval_rows"] == 3
    assert metrics["eval_tokens"] == labelled(held_out)


def test_two_identical_runs_are_equal_to_the_last_bit(trainer, adapted):
    finals = []
    for folder in ("first", "second"):
        made = trainer(model=adapted(dropout=0.3), max_steps=5, gradient_accumulation_steps=2, folder=folder)
        made.train()
        losses = [record["loss"] for record in made.state.log_history if "loss" in record]
        finals.append((losses, trainable(made.model)))
    assert finals[0][0] == finals[1][0]
    assert all(torch.equal(finals[0][1][name], value) for name, value in finals[1][1].items())


def test_another_seed_gives_another_order(trainer):
    losses = []
    for seed in (1, 2):
        made = trainer(seed=seed, folder=f"seed{seed}")
        made.train()
        losses.append([record["loss"] for record in made.state.log_history if "loss" in record])
    assert losses[0] != losses[1]


def test_bf16_autocast_trains_and_keeps_adapter_weights_in_fp32(trainer, records, collator):
    rows = records(4)
    reference = trainer(train=rows, per_device_train_batch_size=4, max_steps=1, folder="fp32")
    made = trainer(train=rows, per_device_train_batch_size=4, max_steps=3, bf16=True, folder="bf16")
    dtypes = []
    handle = made.model.get_output_embeddings().register_forward_hook(
        lambda m, i, out: dtypes.append(out.dtype)
    )
    made.train()
    handle.remove()
    reference.train()
    assert set(dtypes) == {torch.bfloat16}
    assert {parameter.dtype for parameter in trainable(made.model).values()} == {torch.float32}
    first = [t.state.log_history[0]["loss"] for t in (made, reference)]
    assert first[0] == pytest.approx(first[1], rel=2e-2)
    assert made.state.log_history[2]["loss"] < made.state.log_history[0]["loss"]


def test_activation_checkpointing_gives_the_same_gradients_without_recording_below_the_adapter(
    trainer, records, adapted
):
    rows = records(4)
    common = {"train": rows, "per_device_train_batch_size": 4, "max_steps": 1}
    plain = gradients_of(trainer(folder="plain", **common))[0]
    made = trainer(folder="checkpointed", activation_checkpointing=True, **common)
    needs_grad = []
    first_layer = made.model.get_base_model().model.layers[0]
    handle = first_layer.register_forward_pre_hook(
        lambda m, inputs: needs_grad.append(inputs[0].requires_grad)
    )
    checkpointed = gradients_of(made)[0]
    handle.remove()
    assert made.args.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert needs_grad[0] is False
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


@pytest.mark.parametrize("policy", ["selective", "mlp", "layer"])
def test_a_checkpointing_policy_gives_the_same_run_and_is_taken_back(trainer, records, adapted, policy):
    rows = records(4)
    common = {"train": rows, "per_device_train_batch_size": 4, "max_steps": 3}
    expected = gradients_of(trainer(model=adapted(dropout=0.3), folder="plain", **common))
    made = trainer(model=adapted(dropout=0.3), folder="checkpointed", checkpointing=policy, **common)
    found = gradients_of(made)
    for before, after in zip(expected, found, strict=True):
        assert all(torch.equal(after[name], gradient) for name, gradient in before.items())
    modules = list(made.model.modules())
    assert not any("forward" in module.__dict__ for module in modules)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in modules)


@pytest.mark.parametrize("kernel", ["chunked", "narrowed", "torch"])
def test_a_loss_kernel_is_chosen_by_name(trainer, records, collator, kernel):
    if kernel == "torch" and not hasattr(torch.nn.functional, "linear_cross_entropy"):
        pytest.skip("torch 2.14 has it")
    rows = records(4)
    made = trainer(train=rows, loss_kernel=kernel, loss_chunk_rows=3 if kernel == "chunked" else None)
    loss = made.compute_loss(made.model.eval(), collator(rows), num_items_in_batch=labelled(rows))
    textbook = plain_losses(made.model, rows, collator).sum() / labelled(rows)
    assert loss.item() == pytest.approx(textbook.item(), rel=1e-6)


def in_fp16(made, overflowing_steps):
    """Give a trainer on the CPU what fp16 has on a GPU, a gradient scaler, and gradients that overflow."""
    made.args.mixed_precision = "fp16"
    made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    left = iter(range(overflowing_steps))
    parameter = next(p for p in made.model.parameters() if p.requires_grad)
    parameter.register_hook(lambda gradient: gradient if next(left, None) is None else gradient * math.inf)
    return made


def test_fp16_steps_that_overflow_are_skipped(trainer):
    made = in_fp16(trainer(max_steps=6), overflowing_steps=3)
    start, weights = trainable(made.model), []
    made.add_callback(Weights(weights))
    made.train()
    assert made.accelerator.scaler.get_scale() == 2.0**13
    unchanged = [all(torch.equal(start[name], value) for name, value in step.items()) for step in weights]
    assert unchanged == [True] * 3 + [False] * 3


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_fp16_steps_that_overflow_at_any_scale_stop_the_run(trainer, optim):
    made = in_fp16(trainer(max_steps=SKIPPED_STEPS + 5, optim=optim), overflowing_steps=100)
    before = trainable(made.model)
    message = rf"{SKIPPED_STEPS} steps in a row were skipped, up to step {SKIPPED_STEPS}, whose records are t"
    with pytest.raises(UserError, match=message):
        made.train()
    assert all(torch.equal(before[name], value) for name, value in trainable(made.model).items())


def test_throughput_counts_tokens_without_padding_and_labels(trainer, records):
    rows = records(4)
    made = trainer(train=rows, max_steps=4)
    made.train()
    passes = 2  # four steps of two rows over four rows
    assert made.meter.total.tokens == passes * sum(len(row["input_ids"]) for row in rows)
    assert made.meter.total.labelled == passes * labelled(rows)
    assert (
        made.state.log_history[0]["tokens_per_second"]
        > made.state.log_history[0]["labelled_tokens_per_second"]
        > 0
    )
    assert made.state.log_history[0]["peak_memory_gib"] > 0.05
    assert "mfu" not in made.state.log_history[0]


def test_mfu_is_reported_when_the_peak_is_given(trainer):
    made = trainer(max_steps=2, peak_flops=1e9)
    made.train()
    total = made.meter.total
    assert made.state.log_history[-1]["mfu"] == pytest.approx(total.flops / total.seconds / 1e9)


def test_record_ids_do_not_reach_the_model(trainer):
    made = trainer(max_steps=1)
    seen = set()
    made.model.register_forward_pre_hook(lambda m, args, kwargs: seen.update(kwargs), with_kwargs=True)
    made.train()
    assert seen == {"input_ids", "attention_mask"}


def test_a_poisoned_record_stops_the_run_and_is_named(trainer, records):
    rows = records(8)
    for row in rows:
        row["input_ids"] = [min(token, 46) for token in row["input_ids"]]
    rows[5]["input_ids"][1] = 47
    made = trainer(train=rows, max_steps=20)
    with torch.no_grad():
        made.model.get_input_embeddings().weight[47] = float("nan")
    with pytest.raises(
        UserError, match=r"nan in step \d+ on 1 of 2 records: train\.jsonl:6\. Try to lower"
    ) as caught:
        made.train()
    assert "train.jsonl:5" not in str(caught.value)


def test_a_non_finite_gradient_stops_the_run_and_names_the_step(trainer):
    made = trainer(max_steps=3)
    parameter = next(p for p in made.model.parameters() if p.requires_grad)
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        UserError, match=r"gradient norm became (nan|inf) in step 1, whose records are train\.jsonl:\d+"
    ):
        made.train()


def test_the_guard_can_be_switched_off(trainer):
    made = trainer(max_steps=2, stop_on_non_finite=False)
    with torch.no_grad():
        next(p for p in made.model.parameters() if p.requires_grad).fill_(float("nan"))
    made.train()
    assert math.isnan(made.state.log_history[0]["loss"])
    first = json.loads((Path(made.args.output_dir) / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == "nan"  # JSON has no nan


def test_batches_without_labels_are_refused(trainer, collator):
    made = trainer()
    made.data_collator = lambda rows: {k: v for k, v in collator(rows).items() if k != "labels"}
    with pytest.raises((UserError, KeyError)):
        made.train()


def test_label_smoothing_is_applied_in_training_only(trainer, records, collator):
    rows = records(4)
    smooth = trainer(train=rows, evaluation=rows, per_device_train_batch_size=4, label_smoothing_factor=0.2)
    sharp = trainer(train=rows, evaluation=rows, per_device_train_batch_size=4, folder="sharp")
    batch, count = collator(rows), labelled(rows)
    assert smooth.compute_loss(smooth.model, batch, num_items_in_batch=count) != sharp.compute_loss(
        sharp.model, batch, num_items_in_batch=count
    )
    assert smooth.evaluate()["eval_loss"] == sharp.evaluate()["eval_loss"]


def test_plain_training_arguments_are_refused(tmp_path, adapted):
    with pytest.raises(UserError, match="args is TrainingArguments. Pass a"):
        Trainer(model=adapted(), args=transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
