"""The JSONL log and the progress bar."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from llama_adapter.training.callbacks import JsonlLog, ProgressBar, headline


@pytest.fixture
def args(tmp_path):
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True)


def state(step, process_zero=True):
    return TrainerState(global_step=step, max_steps=10, epoch=step / 5, is_world_process_zero=process_zero)


def lines(args):
    return [json.loads(line) for line in (Path(args.output_dir) / "log.jsonl").read_text().splitlines()]


def log(callback, args, step, values, process_zero=True):
    callback.on_log(args, state(step, process_zero), TrainerControl(), logs=values)


def test_every_record_is_one_json_line(args):
    callback = JsonlLog()
    callback.on_train_begin(args, state(0), TrainerControl())
    log(callback, args, 1, {"loss": 2.5, "learning_rate": 1e-3})
    log(callback, args, 2, {"eval_loss": float("nan"), "note": Path("x")})
    first, second = lines(args)
    assert (first["step"], first["loss"], first["epoch"]) == (1, 2.5, 0.2)
    assert first["time"] > 1.7e9
    assert (second["eval_loss"], second["note"]) == ("nan", "x")


def test_a_resumed_run_continues_the_log_without_repeating_steps(args):
    callback = JsonlLog()
    callback.on_train_begin(args, state(0), TrainerControl())
    for step in range(1, 6):
        log(callback, args, step, {"loss": float(step)})
    path = Path(args.output_dir) / "log.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')  # the crash cut the last line
    callback.on_train_begin(args, state(3), TrainerControl())
    log(callback, args, 4, {"loss": 40.0})
    assert [(record["step"], record["loss"]) for record in lines(args)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 40.0),
    ]


def test_a_fresh_run_begins_a_fresh_log(args):
    callback = JsonlLog()
    callback.on_train_begin(args, state(0), TrainerControl())
    log(callback, args, 1, {"loss": 1.0})
    callback.on_train_begin(args, state(0), TrainerControl())
    assert lines(args) == []


def test_other_ranks_write_nothing(args):
    callback = JsonlLog()
    callback.on_train_begin(args, state(0, process_zero=False), TrainerControl())
    log(callback, args, 1, {"loss": 1.0}, process_zero=False)
    assert not (Path(args.output_dir) / "log.jsonl").exists()


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=140)


def test_the_bar_shows_steps_and_numbers_and_gives_the_terminal_back(args):
    screen = console(terminal=True)
    bar = ProgressBar(screen)
    bar.on_train_begin(args, state(4), TrainerControl())
    bar.on_step_end(args, state(5), TrainerControl())
    log(bar, args, 5, {"loss": 1.23456, "learning_rate": 0.001})
    for _ in range(2):
        bar.on_prediction_step(args, state(5), TrainerControl(), eval_dataloader=None)
    log(bar, args, 5, {"eval_loss": 2.0, "eval_perplexity": 7.389})
    bar.on_evaluate(args, state(5), TrainerControl())
    bar.close()
    shown = screen.file.getvalue()
    assert "5/10" in shown
    assert "loss 1.2346  lr 0.001" in shown
    assert "eval loss 2.0000  perplexity 7.39" in shown
    assert shown.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_without_a_terminal_there_is_one_line_per_record(args):
    screen = console(terminal=False)
    bar = ProgressBar(screen)
    bar.on_train_begin(args, state(0), TrainerControl())
    bar.on_step_end(args, state(1), TrainerControl())
    bar.on_prediction_step(args, state(1), TrainerControl())
    log(bar, args, 1, {"loss": 1.0, "tokens_per_second": 1234.5})
    log(bar, args, 1, {"total_flos": 3.0})
    log(bar, args, 1, {"train_runtime": 3.0, "tokens_per_second": 5.0})  # the table at the end says this
    assert screen.file.getvalue() == "step 1/10  loss 1.0000  1,234 tokens/s\n"


def test_other_ranks_show_nothing(args):
    screen = console(terminal=True)
    bar = ProgressBar(screen)
    bar.on_train_begin(args, state(0, process_zero=False), TrainerControl())
    log(bar, args, 1, {"loss": 1.0}, process_zero=False)
    bar.close()
    assert screen.file.getvalue() == ""


def test_headline_keeps_the_order_and_skips_what_is_not_a_number():
    assert headline({"grad_norm": 2.0, "loss": 1.0, "eval_loss": "nan"}) == "loss 1.0000  grad norm 2"


def test_tensorboard_gets_the_same_numbers(trainer, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    made = trainer(report_to=["tensorboard"], max_steps=3)
    made.train()
    folder = next(path.parent for path in tmp_path.rglob("events.out.tfevents*"))
    accumulator = events.EventAccumulator(str(folder))
    accumulator.Reload()
    shown = [event.value for event in accumulator.Scalars("train/loss")]
    logged = [record["loss"] for record in made.state.log_history if "loss" in record]
    assert shown == pytest.approx(logged)
