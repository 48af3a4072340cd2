"""A compiled module as the base of an adapter: a program that fails if it differs from the plain one."""

import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from llama_adapter import ZeroInitConfig


def make_base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.2, **sizes)).eval()


def make_adapted(base: torch.nn.Module, preset: str) -> torch.nn.Module:
    model = get_peft_model(base, ZeroInitConfig(task_type="CAUSAL_LM", preset=preset)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "zero_init_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def check(preset: str) -> None:
    """The compiled base gives the plain one's logits and gradients."""
    ids = torch.arange(20).view(2, 10)
    plain = make_adapted(make_base(), preset)
    compiled = make_adapted(torch.compile(make_base(), backend="eager", fullgraph=True), preset)
    outputs = [model(input_ids=ids, labels=ids) for model in (plain, compiled)]
    for output in outputs:
        output.loss.backward()
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits)
    grads = {n: p.grad for n, p in plain.named_parameters() if p.requires_grad}
    for name, parameter in compiled.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, grads[name.replace("._orig_mod", "")])


if __name__ == "__main__":
    torch.set_num_threads(1)
    check("v21")
