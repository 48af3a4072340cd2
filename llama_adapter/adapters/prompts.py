"""Gated prompts: learned rows that the queries of a layer attend to in a softmax of their own.

The heart of LLaMA-Adapter V1 (arXiv 2303.16199, section 3.2). Beside the layer's attention over tokens, its
queries attend to P learned prompts; the result is multiplied by a gate per head and added. Gates start at
zero, so training starts from exactly the pretrained model.

``tanh(g) * softmax(q k) v`` is computed as ``softmax(q k) (tanh(g) v)``: the gate then touches P rows instead
of all positions. Under grouped-query attention values are repeated per query head first, since gates belong
to query heads.

Keys and values are computed anew in every forward, since a copy kept across steps would cut the prompts'
gradient; only during generation they are computed once, and kept with that generation's cache.

Dimensions: B batch, T query positions, P prompt length, H hidden size, Q query heads, G key/value heads, D
head size.
"""

from dataclasses import dataclass
from typing import Literal, NoReturn, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.adapters.families import refuse_prompts, warn_if_untested
from llama_adapter.adapters.layer import Attach, Plan, Value, ZeroInitLayer, active_in, value_of
from llama_adapter.adapters.projections import AttentionShape, attention_shape, project_prompts
from llama_adapter.adapters.prompt_attention import attend_to_prompts
from llama_adapter.adapters.structure import attention_sites, placement
from llama_adapter.attention import PROMPT_BRANCH, Memory, carry_prompts


@dataclass(kw_only=True, frozen=True)
class PromptConfig:
    """The prompts of one adapter; users set these on ``ZeroInitConfig``, which documents them."""

    length: int
    gate: Literal["head", "scalar"]
    gate_activation: Literal["tanh", "identity"]
    new_gate: bool
    prompt_init_std: float
    gate_init_std: float


class PromptLayer(ZeroInitLayer):
    """The prompts and gates of any number of adapters beside one attention module."""

    adapter_layer_names = ("zero_init_prompt", "zero_init_gate", "zero_init_new_gate")

    def __init__(self, layer_name: str, shape: AttentionShape) -> None:
        super().__init__()
        self.layer_name = layer_name
        self.shape = shape
        self.zero_init_prompt = nn.ModuleDict()
        self.zero_init_gate = nn.ModuleDict()
        self.zero_init_new_gate = nn.ModuleDict()
        self._activation: dict[str, str] = {}
        self._device = torch.device("cpu")

    @property
    def weight(self) -> NoReturn:
        """There is none; PEFT's tuner layers would look for it in the layer they wrap, without end."""
        raise AttributeError(
            f"The prompts of {self.layer_name!r} wrap no layer, so there is no weight. Read zero_init_prompt."
        )

    def add_prompts(
        self, adapter_name: str, config: PromptConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Give an adapter its prompts and gates here.

        Shapes: prompts (P, H); gates (Q, 1, 1), or (1, 1, 1) for one scalar per layer; new gate (1, 1, 1).
        """
        heads = self.shape.num_heads if config.gate == "head" else 1
        prompt = torch.randn(config.length, self.shape.hidden_size) * config.prompt_init_std
        gate = torch.randn(heads, 1, 1) * config.gate_init_std
        self.zero_init_prompt[adapter_name] = Value(prompt.to(device, dtype))
        self.zero_init_gate[adapter_name] = Value(gate.to(device, dtype))
        if config.new_gate:
            self.zero_init_new_gate[adapter_name] = Value(torch.ones(1, 1, 1, device=device, dtype=dtype))
        self._activation[adapter_name] = config.gate_activation
        self._device = device

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        """Move prompts and gates beside their attention module: PEFT calls it after a load by way of meta."""
        for values in (self.zero_init_prompt, self.zero_init_gate, self.zero_init_new_gate):
            if adapter_name in values and not value_of(adapter_name, values).is_meta:
                values[adapter_name].to(device or self._device)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete one adapter's prompts and gates."""
        super().delete_adapter(adapter_name)
        self._activation.pop(adapter_name, None)

    def has_active_prompts(self) -> bool:
        """Whether an active adapter has prompts here."""
        return any(name in self.zero_init_prompt for name in active_in(self))

    def effective_gate(self, adapter_name: str) -> Float[Tensor, "Q 1 1"]:
        """Factor on the prompts' attention: the activated gate, times the new gate where there is one."""
        gate = value_of(adapter_name, self.zero_init_gate)
        if self._activation[adapter_name] == "tanh":
            gate = torch.tanh(gate)
        if adapter_name in self.zero_init_new_gate:
            gate = gate * value_of(adapter_name, self.zero_init_new_gate)
        return gate

    def attend(
        self,
        attention: nn.Module,
        query: Float[Tensor, "B Q T D"],
        scaling: float | None,
        softcap: float | None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "B T Q D"]:
        """Sum over active adapters of the gated attention of ``query`` to their prompts.

        Args:
            attention: the module this layer sits beside.
            query: as the model's own attention gets it, rotated and normalised.
            scaling: factor on the scores; None for 1 / sqrt(D).
            softcap: bound c of the scores, ``c * tanh(score / c)``; None for none.
            memory: of one generation, for keys and values; None computes them anew.
        """
        outputs = []
        for name in active_in(self):
            if name in self.zero_init_prompt:
                keys, values = self._keys_and_values(name, attention, query, memory)
                outputs.append(attend_to_prompts(query, keys, values, scaling, softcap).transpose(1, 2))
        return torch.stack(outputs).sum(0) if len(outputs) > 1 else outputs[0]

    def _keys_and_values(
        self, name: str, attention: nn.Module, query: Float[Tensor, "B Q T D"], memory: Memory | None
    ) -> tuple[Float[Tensor, "R Q P D"], Float[Tensor, "R Q P D"]]:
        """One adapter's keys and gated values per query head, in the query's type; R is B or 1, for all."""
        place = (self.layer_name, name, query.dtype, query.device, query.shape[0])
        if memory is not None and place in memory:
            return cast("tuple[Tensor, Tensor]", memory[place])
        prompts = value_of(name, self.zero_init_prompt).to(query.dtype).unsqueeze(0)
        keys, values = project_prompts(attention, prompts, self.shape.head_size)
        per_group = query.shape[1] // keys.shape[1]
        keys = keys.repeat_interleave(per_group, dim=1)
        values = values.repeat_interleave(per_group, dim=1) * self.effective_gate(name).to(values.dtype)
        keys, values = keys.to(query.dtype), values.to(query.dtype)
        if memory is not None:
            # for every row at once, which saves each later token the operators that would do it
            keys, values = (x.expand(query.shape[0], -1, -1, -1) for x in (keys, values))
            memory[place] = keys, values
        return keys, values


def plan_prompts(model: nn.Module, stack: str, layers: list[int], config: PromptConfig | None) -> Plan:
    """Where prompts go: path of each attention module -> how to attach its prompts.

    Args:
        model: the base model, adapted or not.
        stack: path of its layer stack.
        layers: positions of the layers to adapt.
        config: the prompts; None attaches none.

    Raises:
        UserError: the model's attention cannot carry prompts.
    """
    if config is None:
        return {}
    sites = attention_sites(model, stack)
    if not sites:
        raise refuse_prompts(model)
    warn_if_untested(model)
    return {
        site.name: _attach_prompts(site.name, attention_shape(site.module), config)
        for site in sites
        if site.layer in layers
    }


def _attach_prompts(path: str, shape: AttentionShape, config: PromptConfig) -> Attach:
    """How one attention module gets its prompts."""

    def attach(adapter_name: str, parent: nn.Module, name: str, attention: nn.Module) -> None:
        branch = attention._modules.get(PROMPT_BRANCH)
        if not isinstance(branch, PromptLayer):
            branch = PromptLayer(path, shape)
            carry_prompts(attention, branch)
        branch.add_prompts(adapter_name, config, *placement(attention))

    return attach
