"""A program for torchrun: an adapted model sharded by FSDP2 gives the loss and gradients of the whole one.

Each process takes its share of the rows. A difference ends the program with an error.
"""

import warnings

import torch
import torch.distributed as dist
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from llama_adapter import ZeroInitConfig

CASES = [("v21", torch.float32), ("v2", torch.bfloat16)]


def make_base(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.2, **sizes)).to(dtype)


def make_adapted(preset: str, dtype: torch.dtype) -> PeftModel:
    model = get_peft_model(make_base(dtype), ZeroInitConfig(task_type="CAUSAL_LM", preset=preset))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "zero_init_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def shard(model: PeftModel) -> PeftModel:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def check(preset: str, dtype: torch.dtype) -> None:
    ids = torch.randint(0, 64, (4, 9), generator=torch.Generator().manual_seed(2))
    mine = ids.chunk(dist.get_world_size())[dist.get_rank()]
    whole, sharded = make_adapted(preset, dtype), shard(make_adapted(preset, dtype))
    trainable = [n for n, p in whole.named_parameters() if p.requires_grad]
    assert trainable == [n for n, p in sharded.named_parameters() if p.requires_grad]

    optimizers = [
        torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1) for m in (whole, sharded)
    ]
    for _ in range(2):
        expected = whole(input_ids=ids, labels=ids).loss
        loss = sharded(input_ids=mine, labels=mine).loss
        for value in (expected, loss):
            value.backward()
        total = loss.detach().clone()
        dist.all_reduce(total)
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 0.05, "atol": 5e-3}
        torch.testing.assert_close(total / dist.get_world_size(), expected.detach(), **tolerance)
        grads = {n: p.grad for n, p in whole.named_parameters() if p.requires_grad}
        for name, parameter in sharded.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(parameter.grad.full_tensor(), grads[name], **tolerance)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    gathered = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True))
    if dist.get_rank() == 0:
        found = get_peft_model_state_dict(sharded, state_dict=gathered)
        torch.testing.assert_close(dict(found), dict(get_peft_model_state_dict(whole)), **tolerance)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for preset, dtype in CASES:
        check(preset, dtype)
    dist.destroy_process_group()
