"""The base model of an adapter conversion: sizes and the adapter's tensor list, without loading weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from peft import get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from llama_adapter.adapters import ZeroInitConfig
from llama_adapter.checkpoints.adapter_layouts import Change
from llama_adapter.checkpoints.names import OUTSIDE_LAYERS
from llama_adapter.checkpoints.rotary import halves_to_pairs, pairs_to_halves
from llama_adapter.errors import UserError
from llama_adapter.file_formats.safetensors_file import opened
from llama_adapter.models import BaseModelConfig, load_base_config

_EMBEDDINGS = f"{OUTSIDE_LAYERS['tok_embeddings']}.weight"


class AdapterBase:
    """A LLaMA in a Hugging Face folder, known by its config and its embeddings.

    Args:
        folder: The folder; None raises the error that says that it is needed.

    Raises:
        UserError: There is no such folder, or its model is no LLaMA.
    """

    def __init__(self, folder: str | None) -> None:
        if folder is None:
            raise UserError("No base model was given (--base). Use the Hugging Face folder of its LLaMA.")
        self.folder = Path(folder)
        self.config: Any = load_base_config(BaseModelConfig(name_or_path=folder))
        if self.config.model_type != "llama":
            raise UserError(
                f"The base model {folder!r} is of type {self.config.model_type!r}. "
                "Official adapters belong to LLaMA; use its folder, made by `convert --kind meta-llama`."
            )

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return self.config.num_hidden_layers

    def embeddings(self) -> Shaped[Tensor, "V H"] | None:
        """The input embeddings, V tokens x H hidden size; None where no safetensors file holds them."""
        for path in sorted(self.folder.glob("*.safetensors")):
            with opened(path) as file:
                if _EMBEDDINGS in file.keys():  # noqa: SIM118 - it is no mapping
                    return file.get_tensor(_EMBEDDINGS)
        return None

    def adapter_shapes(self, options: Mapping[str, Any]) -> tuple[ZeroInitConfig, dict[str, torch.Size]]:
        """Let PEFT say what an adapter with these options holds.

        Args:
            options: Of ``ZeroInitConfig``.

        Returns:
            The config, with the base's fingerprint, and the shape of each tensor by its name in the file.
        """
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config)
        embeddings = self.embeddings()
        if embeddings is not None:  # the fingerprint takes a sample of them
            model.get_input_embeddings().weight = nn.Parameter(embeddings, requires_grad=False)
        config = ZeroInitConfig(**options)
        config.base_model_name_or_path = str(self.folder)
        adapted = get_peft_model(model, config)
        config.inference_mode = True
        return config, {name: tensor.shape for name, tensor in get_peft_model_state_dict(adapted).items()}

    def to_ours(self, tensor: Shaped[Tensor, "..."], change: Change) -> Shaped[Tensor, "..."]:
        """An official tensor as our adapter holds it."""
        if change == "gate":
            return tensor.reshape(-1, 1, 1)
        return tensor if change == "same" else pairs_to_halves(tensor, self._heads(change))

    def to_official(
        self, tensor: Shaped[Tensor, "..."], change: Change, scalar: bool = False
    ) -> Shaped[Tensor, "..."]:
        """The way back; a scalar gate, (1, 1, 1) with us, has shape (1,) there."""
        if change == "gate":
            return tensor.reshape(1) if scalar else tensor.unsqueeze(0)
        return tensor if change == "same" else halves_to_pairs(tensor, self._heads(change))

    def _heads(self, change: Change) -> int:
        """Heads that the rows of a query or key tensor belong to."""
        query = change == "query_rows"
        return self.config.num_attention_heads if query else self.config.num_key_value_heads
