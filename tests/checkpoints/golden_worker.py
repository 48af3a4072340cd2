"""A fresh process that opens a converted adapter with PEFT alone and writes down what it computes.

python -m tests.checkpoints.golden_worker BASE ADAPTER CASE OUTPUT [BASE ADAPTER CASE OUTPUT ...]
"""

import sys
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from transformers import AutoModelForCausalLM

import llama_adapter  # noqa: F401 - makes the method known to PEFT
from tests.checkpoints.golden_cases import OPTIONS, load, prompt_parameters
from tests.checkpoints.visual_oracle import conditions

NEW_TOKENS = 6


def main(base, adapter, case, output):
    """Logits, loss, gradients and greedy tokens of one case."""
    golden = load(case)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), adapter, is_trainable=True
    ).eval()
    visual = {}
    if case in OPTIONS:
        visual = load_file(Path(adapter) / "conditioner.safetensors")
        visual = {name: tensor.requires_grad_() for name, tensor in visual.items()}

    def run(tokens, row):
        """Logits of one row, with its image's condition added to the prompts."""
        if not visual:
            return model(tokens).logits
        added = conditions(visual, golden["golden.inputs.clip_tokens"][row : row + 1])[0]
        parameters = dict(model.named_parameters())
        changed = {name: parameters[name] + added for name in prompt_parameters()}
        return functional_call(model, changed, (tokens,)).logits

    tokens, labels = golden["golden.inputs.tokens"], golden["golden.inputs.labels"]
    logits = torch.cat([run(tokens[row : row + 1], row) for row in range(len(tokens))])
    loss = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=0
    )
    loss.backward()
    found = {"logits": logits.detach(), "loss": loss.detach()}
    named = [*model.named_parameters(), *visual.items()]
    found |= {f"grad.{name}": tensor.grad for name, tensor in named if tensor.grad is not None}
    for row, prompt in enumerate(golden.get("golden.inputs.greedy_prompt", [])):
        sequence = prompt[prompt >= 0].unsqueeze(0)
        with torch.no_grad():
            for _ in range(NEW_TOKENS):
                following = run(sequence, row)[:, -1].argmax(-1, keepdim=True)
                sequence = torch.cat([sequence, following], dim=1)
        found[f"greedy.{row}"] = sequence[0]
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, output)


if __name__ == "__main__":
    for start in range(1, len(sys.argv), 4):
        main(*sys.argv[start : start + 4])
