"""What a spawned worker runs; the child knows nothing of the parent but its arguments."""

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM


def build_and_load(config: PeftConfig, base: Path, adapter: Path, ids: list[list[int]]) -> dict:
    """Attach a fresh adapter from an unpickled config, then load a saved one; returns plain values."""
    torch.set_num_threads(1)
    fresh = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with torch.no_grad():
        return {
            "config": repr(config),
            "trainable": fresh.get_nb_trainable_parameters(),
            "logits": loaded(input_ids=torch.tensor(ids)).logits.tolist(),
        }
