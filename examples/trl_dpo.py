"""Preference tuning with TRL's DPOTrainer: the reference is the same model with its adapter off.

Command:  python examples/trl_dpo.py [--base FOLDER] [--data PAIRS.json] [--steps 12] [--output FOLDER]
Needs:    pip install trl
Hardware: 2 CPU cores, 4 GB of memory; a GPU is used if there is one
Time:     about a minute of CPU time with one thread (55 s were measured)
Expected: loss 0.693 (model and reference agree) -> 0.02, margin of the rewards 0 -> 3.8
"""

import json
from pathlib import Path

from datasets import Dataset
from jsonargparse import auto_cli
from trl import DPOConfig, DPOTrainer

from llama_adapter import ZeroInitConfig

SHORT_ANSWERS = {
    "What colour is grass?": "Green.",
    "How many days has a week?": "Seven.",
    "What do bees make?": "Honey.",
    "Which season follows winter?": "Spring.",
    "What is frozen water called?": "Ice.",
    "How many legs has a spider?": "Eight.",
    "What do cows drink?": "Water.",
    "Where does the sun rise?": "In the east.",
}
ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def own_pairs() -> list[dict]:
    """Preferences for short answers over long-winded ones."""
    filler = "That is a very good question. There are many things to say about it, and I would be happy to: "
    return [
        {
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": short}],
            "rejected": [{"role": "assistant", "content": filler + short.lower()}],
        }
        for question, short in SHORT_ANSWERS.items()
    ]


def read_pairs(data: Path) -> list[dict]:
    """Preference pairs of a JSON file in ShareGPT form: ``conversations``, ``chosen`` and ``rejected``."""

    def message(turn: dict[str, str]) -> dict[str, str]:
        return {"role": ROLES[turn["from"]], "content": turn["value"]}

    return [
        {
            "prompt": [message(turn) for turn in record["conversations"]],
            "chosen": [message(record["chosen"])],
            "rejected": [message(record["rejected"])],
        }
        for record in json.loads(data.read_text(encoding="utf-8"))
    ]


def main(
    base: str = "models/SmolLM2-135M-Instruct",
    data: Path | None = None,
    steps: int = 12,
    learning_rate: float = 2e-3,
    output: Path = Path("runs/trl-dpo"),
) -> None:
    """Train an adapter on preference pairs and print how the margin between chosen and rejected grows.

    Args:
        base: a chat model's folder or hub name; `make demo` writes the default.
        data: preference pairs as JSON; without it, eight pairs that prefer short answers.
        steps: optimiser steps.
        learning_rate: adapters take far larger ones than whole models.
        output: folder for the adapter.
    """
    trainer = DPOTrainer(
        model=base,
        args=DPOConfig(
            output_dir=str(output),
            max_steps=steps,
            learning_rate=learning_rate,
            per_device_train_batch_size=4,
            max_length=256,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=False,
            activation_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Dataset.from_list(read_pairs(data) if data else own_pairs()),
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=10),
    )
    trainer.train()
    for name in ("loss", "rewards/margins"):
        values = [entry[name] for entry in trainer.state.log_history if name in entry]
        print(f"{name}: first {values[0]:.3f}, last {values[-1]:.3f}")
    trainer.save_model(str(output))
    print(f"The adapter is in {output}.")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
