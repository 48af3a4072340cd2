"""The two tables of a run."""

import io

import pytest
from rich.console import Console

from llama_adapter.training.summary import end_table, start_table


@pytest.fixture
def shown():
    def render(table):
        console = Console(file=io.StringIO(), width=160)
        console.print(table)
        return console.file.getvalue()

    return render


def test_start_table_states_the_rate_used_and_what_decays(trainer, shown):
    text = shown(
        start_table(
            trainer(
                base_learning_rate=0.064,
                learning_rate=1e-3,
                schedule="published",
                warmup_epochs=1.0,
                weight_decay=0.02,
                gradient_accumulation_steps=2,
            )
        )
    )
    assert "0.001 = 0.064 x 4 rows / 256, warm-up 1 epochs, cosine to 0" in text
    assert "4 = 2 per device x 1 devices x 2 accumulated" in text
    assert "0.02 on decay: 12 tensors (lora_A, lora_B); none: 0 tensors" in text
    assert "1 x cpu, mixed precision no" in text


def test_start_table_of_transformers_schedules(trainer, shown):
    assert "0.01, cosine, warm-up 2" in shown(
        start_table(trainer(lr_scheduler_type="cosine", warmup_steps=2))
    )


def test_end_table_states_losses_speed_and_size(trainer, records, shown, tmp_path):
    made = trainer(
        evaluation=records(3), eval_on_start=True, eval_strategy="steps", eval_steps=2, peak_flops=1e12
    )
    made.train()
    made.save_result(tmp_path / "adapter")
    text = shown(end_table(made, tmp_path / "adapter"))
    losses = [record["loss"] for record in made.state.log_history if "loss" in record]
    evaluations = [record["eval_loss"] for record in made.state.log_history if "eval_loss" in record]
    assert f"{losses[0]:.4f} -> {losses[-1]:.4f}" in text
    assert f"{evaluations[0]:.4f} (step 0) -> {evaluations[-1]:.4f} (step 4)" in text
    assert "tokens/s" in text
    assert "MFU" in text
    assert "GiB resident, weights included" in text
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert f"({size / 2**20:.2f} MiB)" in text


def test_end_table_names_the_best_checkpoint(trainer, records, shown, tmp_path):
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    made = trainer(evaluation=records(3), load_best_model_at_end=True, **steps)
    made.train()
    made.save_result(tmp_path / "adapter")
    assert f"checkpoint-{made.state.best_global_step}, loss {made.state.best_metric:.4f}" in shown(
        end_table(made, tmp_path / "adapter")
    )


def test_start_table_states_the_padding_of_every_epoch(trainer, records, shown):
    made = trainer(
        train=records(20),
        batching="tokens",
        tokens_per_batch=30,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
        max_steps=-1,
    )
    text = shown(start_table(made))
    shares = [f"{made.train_batches.statistics(epoch).padding_share:.1%}" for epoch in range(3)]
    assert f"{', '.join(shares)} of all tokens in epoch 1 to 3" in text
    assert "at most 30 x 1 devices x 2 accumulated; rows of like length, about" in text
    assert f"longest {max(len(row['input_ids']) for row in records(20))}" in text
    packed = trainer(train=records(20), batching="packed", tokens_per_batch=30, max_steps=1)
    assert "0.0% of all tokens in epoch 1 to 1" in shown(start_table(packed))
