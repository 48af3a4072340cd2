"""A fresh process that opens a converted adapter with PEFT alone and writes down what it computes.

python -m tests.checkpoints.golden_worker BASE ADAPTER CASE OUTPUT [BASE ADAPTER CASE OUTPUT ...]
"""

import sys

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from llama_adapter.adapters.conditions import prompt_context
from llama_adapter.conditioning import load_conditioner
from llama_adapter.generation.generator import left_pad
from tests.checkpoints.golden_cases import OPTIONS, load

NEW_TOKENS = 6


def main(base, adapter, case, output):
    """Logits, loss, gradients and greedy tokens of one case."""
    golden = load(case)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), adapter, is_trainable=True
    ).eval()
    visual = load_conditioner(adapter, num_heads=4) if case in OPTIONS else None

    def images():
        """What each record's image adds to its prompts; nothing where the case has no images."""
        added = visual(golden["golden.inputs.clip_tokens"]) if visual else None
        return prompt_context(model, added)

    tokens, labels = golden["golden.inputs.tokens"], golden["golden.inputs.labels"]
    with images():
        logits = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=0
    )
    loss.backward()
    found = {"logits": logits.detach(), "loss": loss.detach()}
    named = [*model.named_parameters(), *(visual.named_parameters() if visual else ())]
    found |= {f"grad.{name}": tensor.grad for name, tensor in named if tensor.grad is not None}
    if "golden.inputs.greedy_prompt" in golden:
        prompts = [prompt[prompt >= 0].tolist() for prompt in golden["golden.inputs.greedy_prompt"]]
        ids, mask = left_pad(prompts, 0)
        with images(), torch.no_grad():
            sequences = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
            )
        for row, sequence in enumerate(sequences):
            found[f"greedy.{row}"] = sequence[-len(prompts[row]) - NEW_TOKENS :]
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, output)


if __name__ == "__main__":
    for start in range(1, len(sys.argv), 4):
        main(*sys.argv[start : start + 4])
