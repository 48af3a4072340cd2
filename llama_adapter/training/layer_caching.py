"""The layer of the trainer that lets training and evaluation skip the frozen lower layers.

Off unless ``cache_lower_layers`` asks for it. With ``auto`` it is on where it is possible, has room and saves
time by ``lower_layer_saving``; the reason is printed either way.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, has_length

from llama_adapter.data.lengths import row_lengths
from llama_adapter.data.tensor_store import readable_bytes
from llama_adapter.errors import UserError
from llama_adapter.training.config import TrainingConfig
from llama_adapter.training.frozen_stack import FrozenStack, find_frozen_stack, obstacle
from llama_adapter.training.layer_saving import (
    LowerLayerSaving,
    lower_layer_saving,
    measure_bytes_per_second,
    measure_flops_per_second,
)
from llama_adapter.training.loading import LoadingTrainer
from llama_adapter.training.lower_layers import LowerLayers
from llama_adapter.training.metrics import GIB, peak_flops

_log = logging.getLogger(__name__)

_UTILISATION = 0.4
"""Share of a GPU's peak that a forward pass is taken to reach."""


class LayerCachingTrainer(LoadingTrainer):
    """Skips frozen lower layers for records that were seen before."""

    args: TrainingConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set up as the host class does, then decide about the cache.

        Args:
            *args: As for ``LoadingTrainer``.
            **kwargs: Likewise.

        Raises:
            UserError: When the cache was asked for and the model or the disk does not allow it.
        """
        super().__init__(*args, **kwargs)
        self.lower_layers: LowerLayers | None = None
        """The cache of the lower layers, where there is one."""
        if self.args.cache_lower_layers is not False:
            self.lower_layers = self._lower_layers(automatic=self.args.cache_lower_layers == "auto")

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Int[Tensor, ""] | int | None = None,
    ) -> Float[Tensor, ""]:
        """One micro-batch, with the lower layers skipped where their output is known."""
        with self._skipping():
            return super().training_step(model, inputs, num_items_in_batch)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """One evaluation, with the lower layers skipped where their output is known."""
        with self._skipping():
            return super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )

    def skipped_flops(self) -> float:
        """FLOPs that the cache has spared since the last call, over all ranks if they fare alike."""
        if self.lower_layers is None:
            return 0.0
        tokens = self.lower_layers.take_skipped_tokens() * self.args.world_size
        return 2.0 * self.lower_layers.stack.weights_below * tokens

    def _skipping(self) -> AbstractContextManager[None]:
        return nullcontext() if self.lower_layers is None else self.lower_layers.attached()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a record; training records get hit rate and size of the cache."""
        if self.lower_layers is not None and "loss" in logs:
            logs["lower_layer_hit_rate"] = self.lower_layers.take_window().rate
            logs["lower_layer_cache_gib"] = self.lower_layers.store.num_bytes / GIB
        super().log(logs, start_time)

    def _lower_layers(self, automatic: bool) -> LowerLayers | None:
        """The cache, if it is possible and, when that is left to us, pays."""
        stack = find_frozen_stack(self.parts.language_model)
        reason = stack if isinstance(stack, str) else self._obstacle(stack)
        if reason is None and isinstance(stack, FrozenStack):
            folder = Path(self.args.lower_layer_cache or Path(self.args.output_dir or ".") / "lower_layers")
            reason = self._too_little_gain(stack, folder) if automatic else None
            if reason is None:
                return self._opened(stack, folder, automatic)
        if not automatic:
            raise UserError(
                f"training.cache_lower_layers={self.args.cache_lower_layers!r} was asked for, but the "
                f"output of the lower layers cannot be cached: {reason}. Set it to false or auto."
            )
        _log.info("lower layers are not cached: %s", reason)
        return None

    def _opened(self, stack: FrozenStack, folder: Path, automatic: bool) -> LowerLayers:
        """Open the cache and say how large it will be."""
        cache = LowerLayers(stack, folder, self.args.mixed_precision, self.args.device, strict=not automatic)
        tokens = self._tokens()
        itemsize = 4 if stack.dtype == "float32" else 2
        needed = (tokens or 0) * stack.hidden_size * itemsize
        cache.store.check_space(max(needed - cache.store.num_bytes, 0), "The states of the lower layers")
        size = f"about {readable_bytes(needed)}" if tokens else "of unknown size, the data are streamed"
        self.console.print(
            f"Lower layers: the output of layers 0 to {stack.first - 1} is kept in {folder}, {size}; "
            f"{readable_bytes(cache.store.num_bytes)} of it are there.",
            highlight=False,
            soft_wrap=True,
        )
        return cache

    def _obstacle(self, stack: FrozenStack) -> str | None:
        """What stands against it in the model or in the settings."""
        args = self.args
        if args.torch_compile:
            return "a compiled model cannot skip layers (torch_compile=true)"
        if args.fsdp or args.deepspeed or self.get_tp_size() > 1:
            return "weights are split over devices"
        if args.neftune_noise_alpha is not None:
            return f"noise is added to the embeddings (neftune_noise_alpha={args.neftune_noise_alpha})"
        return obstacle(stack)

    def _too_little_gain(self, stack: FrozenStack, folder: Path) -> str | None:
        """Why it is not worth it; None when it is."""
        tokens, epochs = self._tokens(), self._epochs()
        if tokens is None or epochs is None:
            return "streamed data have no known size"
        if epochs <= 1:
            return f"the run has {epochs:.2g} epochs, and only later ones gain"
        saving = self._saving(stack, folder, tokens)
        if saving.over(epochs) <= 0:
            return f"it would cost {-saving.over(epochs):.1f} s over {epochs:.2g} epochs"
        _log.info(
            "lower layers are cached: it saves about %.1f s over %.2g epochs", saving.over(epochs), epochs
        )
        return None

    def _saving(self, stack: FrozenStack, folder: Path, tokens: int) -> LowerLayerSaving:
        """Time and room, with the rates of this machine."""
        dtype = getattr(torch, stack.dtype)
        if self.args.mixed_precision in ("bf16", "fp16"):
            dtype = torch.bfloat16 if self.args.mixed_precision == "bf16" else torch.float16
        peak = peak_flops(self.args.device, self.args.peak_flops)
        rate = peak and peak * _UTILISATION
        return lower_layer_saving(
            tokens=tokens,
            hidden_size=stack.hidden_size,
            layers_below=stack.first,
            flops_per_layer=2.0 * stack.weights_below / stack.first,
            flops_per_second=rate or measure_flops_per_second(self.args.device, dtype, stack.hidden_size),
            bytes_per_second=measure_bytes_per_second(folder),
            bytes_per_value=4 if stack.dtype == "float32" else 2,
        )

    def _tokens(self) -> int | None:
        """Tokens of the training data; None for streamed data."""
        rows: Any = self.train_dataset
        return int(row_lengths(rows).sum()) if has_length(rows) and len(rows) else None

    def _epochs(self) -> float | None:
        """How often each record is seen."""
        if self.args.max_steps <= 0:
            return float(self.args.num_train_epochs) / self.args.epoch_parts
        rows: Any = self.train_dataset
        seen = self.args.max_steps * self.get_total_train_batch_size(self.args)
        return seen / len(rows) if has_length(rows) and len(rows) else None
