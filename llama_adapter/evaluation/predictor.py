"""What answers a task's questions: the seam between tasks and models, and the model behind it.

A model whose adapter was trained with pictures sees them; nothing else differs (`multimodal.Sight`). What a
predictor is shown of a question is its own business. It does not know references, scores or files.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from llama_adapter.conditioning.files import has_conditioner
from llama_adapter.data import Turn
from llama_adapter.data.identity import json_digest, weights_digest
from llama_adapter.data.images import read_image
from llama_adapter.errors import UserError
from llama_adapter.evaluation.likelihood import AnswerScorer
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.task import EvaluateConfig
from llama_adapter.generation.config import SessionConfig
from llama_adapter.generation.prompts import with_system
from llama_adapter.generation.session import BASE, Session, name_adapters
from llama_adapter.media import MediaItem, Mix
from llama_adapter.multimodal.model import saved_vision
from llama_adapter.multimodal.sight import check_shown
from llama_adapter.multimodal.whole import is_whole


@runtime_checkable
class Predictor(Protocol):
    """Answers questions."""

    sees_images: bool
    """Whether it looks at a question's picture."""

    @property
    def identity(self) -> str:
        """Hash of everything that decides an answer besides the question: weights, template, sampling."""

    def length(self, question: Question) -> int:
        """Tokens of a question as it is asked; questions of like length are asked together."""

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """The answers to one batch of questions."""

    def log_likelihoods(self, questions: Sequence[Question]) -> list[list[float]]:
        """The log-likelihood of each candidate of each question."""


class ModelPredictor:
    """A base model with or without adapters; of a question it is shown prompt and, if it sees, picture."""

    def __init__(self, config: SessionConfig) -> None:
        """Loads the model.

        Raises:
            UserError: it cannot be loaded.
        """
        self.config = config
        self.session = Session(config)
        self.generator = self.session.generator()
        ignored = isinstance(config, EvaluateConfig) and config.ignore_images
        self._sight = None if ignored else self.generator.sight
        self.sees_images = self._sight is not None
        self._scorer = AnswerScorer(self.generator)

    @cached_property
    def identity(self) -> str:
        """See ``Predictor.identity``; the values of all weights are part of it."""
        config = self.config
        return json_digest(
            {
                "weights": weights_digest(self.session.model.state_dict().items()),
                **({} if self._sight is None else {"sight": self._sight.identity}),
                "use": self.session.current,
                "template": self.generator.template.identity,
                "system": config.system,
                "max_new_tokens": config.max_new_tokens,
                "sampling": [config.temperature, config.top_p, config.repetition_penalty, config.seed],
            }
        )[:16]

    def length(self, question: Question) -> int:
        """See ``Predictor.length``."""
        return len(self.generator.encode(self._turns(question), self._image(question)))

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See ``Predictor.answer``."""
        turns, images = map(self._turns, questions), map(self._image, questions)
        return self.generator.answer(list(turns), self.config, images=list(images))

    def log_likelihoods(self, questions: Sequence[Question]) -> list[list[float]]:
        """See ``Predictor.log_likelihoods``."""
        pairs = [
            (self._turns(question), candidate) for question in questions for candidate in question.candidates
        ]
        images = [self._image(question) for question in questions for _ in question.candidates]
        values = iter(self._scorer.log_likelihoods(pairs, self.config.batch_size, images))
        return [[next(values) for _ in question.candidates] for question in questions]

    def _turns(self, question: Question) -> list[Turn]:
        """The conversation that an answer continues."""
        return with_system([Turn("user", question.prompt)], self.config.system)

    def _image(self, question: Question) -> Any:
        """What is shown with a question: a picture, or inputs of other kinds."""
        return shown_with(question) if self.sees_images else None

    def prepare(self, questions: Sequence[Question]) -> None:
        """Computes features of pictures that a cache on disk is to keep, all at once."""
        if self._sight is not None:
            self._sight.prepare([image for image in map(self._image, questions) if isinstance(image, str)])


def shown_with(question: Question) -> Any:
    """What belongs to a question, as ``Seeing.inputs`` takes it: a file, a picture, a mix, or None.

    Raises:
        UserError: bytes are no picture.
    """
    if not question.inputs:
        return question.image
    pictures = [] if question.image is None else [MediaItem("image", question.image)]
    opened = [
        replace(item, content=read_image(io.BytesIO(item.content)))
        if isinstance(item.content, bytes)
        else item
        for item in (*pictures, *question.inputs)
    ]
    only = opened[0]
    alone = len(opened) == 1 and only.modality == "image" and only.weight == 1
    return only.content if alone else Mix(tuple(opened))


def shown_as(question: Question) -> str:
    """What belongs to a question, in words that tell it from others."""
    items = (*([MediaItem("image", question.image)] if question.image else []), *question.inputs)
    if len(items) == 1 and isinstance(items[0].content, str) and items[0].weight == 1:
        return items[0].content
    return " + ".join(
        str(item if isinstance(item.content, str) else replace(item, content=_digest(item.content)))
        for item in items
    )


def _digest(content: bytes) -> str:
    """A short name for bytes."""
    return f"of {hashlib.sha256(content).hexdigest()[:16]}"


def check_media(config: SessionConfig, questions: Sequence[Question]) -> None:
    """Refuses inputs that the model does not take, before anything is loaded.

    Raises:
        UserError: says which, and what it takes.
    """
    folders = name_adapters(config.adapter)
    chosen = config.use or next(iter(folders), BASE)
    for question in questions:
        shown = Mix(question.inputs) if question.inputs else None
        if shown is not None and shown.inputs[0].modality == "image" and len(shown.inputs) == 1:
            continue
        if shown is not None:
            encoder = saved_vision(folders[chosen]) if chosen in folders else None
            try:
                check_shown(shown, encoder, config.several_images, repr(chosen))
            except UserError as error:
                raise UserError(f"Question {question.id!r}: {error}") from error


def sees_images(config: SessionConfig) -> bool:
    """Whether the model that answers was trained with images, before anything is loaded."""
    folders = name_adapters(config.adapter)
    chosen = config.use or next(iter(folders), BASE)
    if chosen == BASE:
        return is_whole(config.base)
    return chosen in folders and has_conditioner(folders[chosen])
