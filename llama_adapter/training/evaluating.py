"""The layer of the trainer that evaluates: every record once, and one mean over all labelled tokens.

The host averages the means of batches, which weighs an answer by its neighbours. What the loss of a token is,
is said by the class above.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from llama_adapter.training.loss import LabelledPositions
from llama_adapter.training.metrics import AnswerLikelihood
from llama_adapter.training.optimising import OptimisingTrainer


class EvaluatingTrainer(OptimisingTrainer):
    """Evaluates by the negative log-likelihood of labelled tokens."""

    _likelihood: AnswerLikelihood

    def token_losses(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        label_smoothing: float = 0.0,
        all_logits: bool = False,
    ) -> tuple[Any, Float[Tensor, " N"], LabelledPositions]:
        """Outputs of a batch, the losses of its N labelled tokens, and where these are.

        Args:
            model: The wrapped model.
            inputs: The batch; labels and what names its records stay here.
            label_smoothing: Share of the target that all tokens get.
            all_logits: Whether somebody reads the outputs' logits, so that all must be there.
        """
        raise NotImplementedError

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """The host's loader, without ``dataloader_drop_last``: every record is evaluated."""
        with self._keeping_last_batch():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """The host's loader, without ``dataloader_drop_last``."""
        with self._keeping_last_batch():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _keeping_last_batch(self) -> Iterator[None]:
        asked, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = asked

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Float[Tensor, ""] | None, Float[Tensor, "B T V"] | None, Int[Tensor, "B T"] | None]:
        """Evaluate one batch: rows for the exact mean, logits for ``compute_metrics`` if there is one."""
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs, losses, positions = self.token_losses(model, inputs, all_logits=not prediction_loss_only)
        nll, tokens = self.gathered(*positions.per_row(losses))
        self._likelihood.add(nll, tokens)
        loss = losses.sum() / max(losses.numel(), 1)
        if prediction_loss_only:
            return loss, None, None
        return loss, outputs.logits.detach(), inputs["labels"]

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The host's loop; ``{prefix}_loss`` becomes the mean over all labelled tokens of the set."""
        self._likelihood = AnswerLikelihood()
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        metrics = output.metrics if output.metrics is not None else {}
        metrics.update(self._likelihood.metrics(metric_key_prefix))
        return output._replace(metrics=metrics)
