"""How likely given answers are: the sum of their tokens' log-probabilities behind a prompt.

Prompt and answer are written by the template and cut into tokens as in training, and the loss of training's
labelled positions is what is summed, so no full logits are kept. Unusual: the end token behind an answer does
not count, as is customary where options are compared: it would reward models that stop, not those that know.
It knows neither tasks nor files.

Letters: B answers, T tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from peft import PeftModel
from torch import Tensor

from llama_adapter.data import Turn
from llama_adapter.data.collator import padded
from llama_adapter.data.encoding import IGNORE, answer_labels
from llama_adapter.data.records import RecordProblem
from llama_adapter.data.template_base import lifted_media
from llama_adapter.errors import UserError
from llama_adapter.generation.generator import Generator
from llama_adapter.training.labelled_loss import LabelledLoss
from llama_adapter.training.loss import LabelledPositions

Row: TypeAlias = tuple[list[int], list[int]]
"""Token ids and labels of one prompt with its answer."""


class AnswerScorer:
    """Computes log-likelihoods with a generator's model, tokenizer and template."""

    def __init__(self, generator: Generator) -> None:
        """Takes the model as it is; the adapter that is active then counts.

        Args:
            generator: writes prompts and knows the model.
        """
        self.generator = generator
        self._loss = LabelledLoss()

    def log_likelihoods(
        self,
        pairs: Sequence[tuple[Sequence[Turn], str]],
        batch_size: int = 8,
        images: Sequence[Any] | None = None,
    ) -> list[float]:
        """Scores answers.

        Args:
            pairs: conversations that end with the user's turn, each with an answer to it.
            batch_size: answers scored at once.
            images: of each conversation, as ``Generator.answer`` takes them.

        Returns:
            For each the natural logarithm of the answer's probability, without end token.

        Raises:
            UserError: a prompt or an answer is empty, or does not fit the template or the model's context.
        """
        shown = [None] * len(pairs) if images is None else list(images)
        rows = [self.encode(*pair, image) for pair, image in zip(pairs, shown, strict=True)]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place][0]), reverse=True)
        values = [0.0] * len(rows)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            seen = self.generator.seen([shown[place] for place in places])
            found = self._score([rows[place] for place in places], seen)
            for place, value in zip(places, found, strict=True):
                values[place] = value
        return values

    def encode(self, turns: Sequence[Turn], answer: str, image: Any = None) -> Row:
        """The tokens of a prompt with its answer; labels only where the answer itself stands.

        Raises:
            UserError: prompt or answer has no tokens, or does not fit the template or the model's context.
        """
        template = self.generator.template
        try:
            read = self.generator.read(turns, image)
            rendered = template.render([*read, Turn("assistant", answer)])
        except RecordProblem as problem:
            raise UserError(f"{problem}. Use another --template, or other prompts.") from problem
        if self.generator.encoder.media_token_id is not None:
            rendered = lifted_media(rendered)
        (encoded,) = self.generator.encoder.encode([rendered], template.add_special_tokens)
        first, last = rendered.answers[-1]
        written = rendered.text[first:last].rstrip().removesuffix(template.end_token)
        labels = answer_labels(encoded, [(first, first + len(written.rstrip()))])
        if labels[0] != IGNORE or all(label == IGNORE for label in labels):
            raise UserError(
                f"The answer {answer!r} to {turns[-1].full_text!r} cannot be scored, one of them has no "
                "tokens. Use texts that are not empty."
            )
        ids, labels = self.generator.placed(encoded.ids, labels, image)
        self._check_room(len(labels))
        return ids, labels

    def _check_room(self, length: int) -> None:
        """Refuses what the model cannot take in."""
        context = getattr(self.generator.model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and length > context:
            raise UserError(
                f"A prompt with its answer has {length} tokens, the model's context {context}. "
                "Use shorter ones."
            )

    @torch.no_grad()
    def _score(self, rows: Sequence[Row], seen: Mapping[str, Any]) -> list[float]:
        """The log-likelihoods of one batch."""
        model = self.generator.model
        input_ids: Int[Tensor, "B T"] = padded([ids for ids, _ in rows], 0)
        mask: Int[Tensor, "B T"] = padded([[1] * len(ids) for ids, _ in rows], 0)
        positions = LabelledPositions(padded([labels for _, labels in rows], IGNORE).to(model.device))
        inputs = {"input_ids": input_ids.to(model.device), "attention_mask": mask.to(model.device)}
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        whole = self.generator.whole
        _, losses = self._loss(whole, {**inputs, **seen, "use_cache": False}, positions, base)
        summed, _ = positions.per_row(losses)
        return [-value for value in summed.tolist()]
