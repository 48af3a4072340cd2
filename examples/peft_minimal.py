"""Adapt a chat model with ten learned prompts per layer, in a plain PyTorch loop around PEFT.

Command:  python examples/peft_minimal.py [--base FOLDER_OR_NAME] [--steps 30] [--output FOLDER]
Hardware: 2 CPU cores, 3 GB of memory; a GPU is used if there is one
Time:     about a minute of CPU time with one thread (40 s were measured)
Expected: loss 5.7 -> 0.005; held-out words are answered in sentences before and as "high <> low" after
"""

import random
from pathlib import Path

import torch
from jsonargparse import auto_cli
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llama_adapter import ZeroInitConfig

OPPOSITES = {
    "hot": "cold", "big": "small", "early": "late", "open": "closed", "full": "empty", "fast": "slow",
    "light": "dark", "rich": "poor", "young": "old", "wet": "dry", "loud": "quiet", "soft": "hard",
}  # fmt: skip
HELD_OUT = {"high": "low", "happy": "sad", "strong": "weak"}


def chat_ids(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """Token ids of a question, up to where the answer starts."""
    messages = [{"role": "user", "content": f"What is the opposite of {word}?"}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)


def make_batch(
    tokenizer: PreTrainedTokenizerBase, words: list[str], device: torch.device
) -> dict[str, torch.Tensor]:
    """Questions and answers, right-padded; labels cover the answer and its end token."""
    rows, labels = [], []
    for word in words:
        prompt = chat_ids(tokenizer, word)
        answer = tokenizer(f"{word} <> {OPPOSITES[word]}", add_special_tokens=False)["input_ids"]
        answer.append(tokenizer.eos_token_id)
        rows.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(row) for row in rows], batch_first=True)
    batch = {"input_ids": pad(rows, batch_first=True), "attention_mask": mask}
    batch["labels"] = pad(labels, batch_first=True, padding_value=-100)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def show_answers(title: str, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print the greedy answers to the held-out questions."""
    print(f"\n{title}")
    for word in HELD_OUT:
        ids = torch.tensor([chat_ids(tokenizer, word)], device=model.device)
        tokens = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )
        answer = tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True)
        print(f"  {word}: {answer.strip().splitlines()[0] if answer.strip() else answer!r}")


def main(
    base: str = "models/SmolLM2-135M-Instruct",
    steps: int = 30,
    learning_rate: float = 5e-3,
    output: Path = Path("runs/peft-minimal"),
) -> None:
    """Train an adapter on twelve questions and ask three others, before, after, and after loading it again.

    Args:
        base: a chat model's folder or hub name; `make demo` writes the default.
        steps: optimiser steps.
        learning_rate: of AdamW; adapters take far larger ones than whole models.
        output: folder for the adapter.
    """
    random.seed(0)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    show_answers("before", model, tokenizer)

    model = get_peft_model(model, ZeroInitConfig(task_type="CAUSAL_LM", prompt_length=10))
    model.print_trainable_parameters()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    model.train()
    for step in range(1, steps + 1):
        words = random.sample(sorted(OPPOSITES), k=4)
        loss = model(**make_batch(tokenizer, words, device)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 1 or step % 10 == 0 or step == steps:
            print(f"step {step}: loss {loss.item():.3f}")
    model.eval().save_pretrained(output)

    fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    show_answers(f"after, loaded from {output}", PeftModel.from_pretrained(fresh, output), tokenizer)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
