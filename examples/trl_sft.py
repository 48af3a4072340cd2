"""Supervised fine-tuning with TRL's SFTTrainer: the adapter is one argument.

Command:  python examples/trl_sft.py [--base FOLDER_OR_NAME] [--steps 25] [--output FOLDER]
Needs:    pip install trl
Hardware: 2 CPU cores, 3 GB of memory; a GPU is used if there is one
Time:     about a minute of CPU time with one thread (49 s were measured)
Expected: of four held-out answers none is JSON before and all are after; the form is learned from twelve
          rows, the knowledge suffers: two of the four capitals are wrong then. Loss 1.2 -> 0.04
"""

from pathlib import Path

from datasets import Dataset
from jsonargparse import auto_cli
from transformers import pipeline
from trl import SFTConfig, SFTTrainer

from llama_adapter import ZeroInitConfig

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo",
    "Egypt": "Cairo", "Greece": "Athens", "Russia": "Moscow", "Cuba": "Havana",
    "Peru": "Lima", "Norway": "Oslo", "Austria": "Vienna", "Poland": "Warsaw",
}  # fmt: skip
HELD_OUT = {"Germany": "Berlin", "China": "Beijing", "Ireland": "Dublin", "England": "London"}


def question(country: str) -> dict[str, str]:
    """What the user asks."""
    return {"role": "user", "content": f"Tell me the capital of {country}."}


def answer(country: str, capital: str) -> dict[str, str]:
    """What the model shall answer: JSON, not prose."""
    return {"role": "assistant", "content": f'{{"country": "{country}", "capital": "{capital}"}}'}


def describe_answers(trainer: SFTTrainer) -> str:
    """Print the answers for the held-out countries; say how many have the form, and the right capital."""
    trainer.model.eval()
    generator = pipeline("text-generation", model=trainer.model, tokenizer=trainer.processing_class)
    formed, right = 0, 0
    for country, capital in HELD_OUT.items():
        chat = generator([question(country)], max_new_tokens=24, do_sample=False)[0]["generated_text"]
        said = chat[-1]["content"].strip()
        print(f"  {country}: {said!r}")
        formed += said.startswith('{"country": "') and said.endswith('"}')
        right += said == answer(country, capital)["content"]
    return f"{formed} of {len(HELD_OUT)} are JSON, {right} name the right capital"


def main(
    base: str = "models/SmolLM2-135M-Instruct",
    steps: int = 25,
    learning_rate: float = 5e-3,
    output: Path = Path("runs/trl-sft"),
) -> None:
    """Teach a chat model to answer in JSON, and ask it about countries it was not trained on.

    Args:
        base: a chat model's folder or hub name; `make demo` writes the default.
        steps: optimiser steps.
        learning_rate: adapters take far larger ones than whole models.
        output: folder for the adapter.
    """
    rows = [
        {"prompt": [question(country)], "completion": [answer(country, capital)]}
        for country, capital in CAPITALS.items()
    ]
    trainer = SFTTrainer(
        model=base,
        args=SFTConfig(
            output_dir=str(output),
            max_steps=steps,
            learning_rate=learning_rate,
            per_device_train_batch_size=4,
            logging_steps=5,
            save_strategy="no",
            report_to="none",
            bf16=False,
            activation_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=10),
    )
    print(f"before: {describe_answers(trainer)}")
    trainer.train()
    print(f"after: {describe_answers(trainer)}")
    trainer.save_model(str(output))
    print(f"The adapter is in {output}.")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
