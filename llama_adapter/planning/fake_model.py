"""A run's model without content: the base of a config.json with its adapter, on a CPU that holds nothing.

Built on torch's meta device, where a 7B model takes a tenth of a second, then turned into fake tensors that
say they are on the CPU: operators, masks and attention kernels are chosen for them as for real tensors, which
is not so on meta. It does not know what is done with the model.
"""

import copy
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from llama_adapter.errors import UserError
from llama_adapter.models import BaseModelConfig, attach_adapter, check_base
from llama_adapter.training.run import TrainConfig

_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load_base_config(base: BaseModelConfig) -> PretrainedConfig:
    """The base model's configuration; nothing else is read.

    Raises:
        UserError: there is none.
    """
    check_base(base.name_or_path)
    try:
        return AutoConfig.from_pretrained(
            base.name_or_path, revision=base.revision, trust_remote_code=base.trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"The configuration of {base.name_or_path!r} could not be read: {reason} "
            "Set base.name_or_path to a model."
        ) from error


def base_dtype(base: BaseModelConfig, config: PretrainedConfig) -> torch.dtype:
    """Precision of the base weights; `auto` is the one they were saved in."""
    if base.dtype == "auto":
        return getattr(config, "dtype", None) or torch.float32
    found = getattr(torch, _SHORT_DTYPES.get(base.dtype, base.dtype))
    return found if isinstance(found, torch.dtype) else torch.float32


def build_on_meta(base_config: PretrainedConfig, config: TrainConfig, dtype: torch.dtype) -> nn.Module:
    """The frozen base in ``dtype`` with the run's adapter, all on the meta device.

    Raises:
        UserError: the adapter does not fit the base.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(base_config),  # the model writes its precision there
            dtype=dtype,
            attn_implementation=config.base.attn_implementation,
            trust_remote_code=config.base.trust_remote_code,
        )
        model.requires_grad_(False)
        return attach_adapter(model, config.adapter)


def to_fake_cpu(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Gives every parameter and buffer of a meta model the fake device "cpu", in place; ties stay tied."""
    made: dict[int, Any] = {}

    def fake(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        if id(tensor) not in made:
            with mode:
                bare = torch.empty_like(tensor, device="cpu", requires_grad=False)
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if is_parameter else bare
        found: Tensor = made[id(tensor)]
        return found

    for module in model.modules():
        stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = fake(tensor)
    return model
