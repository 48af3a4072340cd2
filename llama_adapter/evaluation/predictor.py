"""What answers a task's questions: the seam between tasks and models, and the text model behind it.

A predictor that sees pictures has the same four members and `sees_images` true; `evaluate_model` takes any.
What it is shown of a question is its own business. It does not know references, scores or files.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

from llama_adapter.data import Turn
from llama_adapter.data.identity import json_digest, weights_digest
from llama_adapter.evaluation.likelihood import AnswerScorer
from llama_adapter.evaluation.task import Question
from llama_adapter.generation.config import SessionConfig
from llama_adapter.generation.prompts import with_system
from llama_adapter.generation.session import Session


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


class TextPredictor:
    """A base model with or without adapters; of a question it is shown the prompt."""

    sees_images = False

    def __init__(self, config: SessionConfig) -> None:
        """Loads the model.

        Raises:
            UserError: it cannot be loaded.
        """
        self.config = config
        self.session = Session(config)
        self.generator = self.session.generator()
        self._scorer = AnswerScorer(self.generator)

    @cached_property
    def identity(self) -> str:
        """See ``Predictor.identity``; the values of all weights are part of it."""
        config = self.config
        return json_digest(
            {
                "weights": weights_digest(self.session.model.state_dict().items()),
                "use": self.session.current,
                "template": self.generator.template.identity,
                "system": config.system,
                "max_new_tokens": config.max_new_tokens,
                "sampling": [config.temperature, config.top_p, config.repetition_penalty, config.seed],
            }
        )[:16]

    def length(self, question: Question) -> int:
        """See ``Predictor.length``."""
        return len(self.generator.encode(self._turns(question)))

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """See ``Predictor.answer``."""
        return self.generator.answer([self._turns(question) for question in questions], self.config)

    def log_likelihoods(self, questions: Sequence[Question]) -> list[list[float]]:
        """See ``Predictor.log_likelihoods``."""
        pairs = [
            (self._turns(question), candidate) for question in questions for candidate in question.candidates
        ]
        values = iter(self._scorer.log_likelihoods(pairs, self.config.batch_size))
        return [[next(values) for _ in question.candidates] for question in questions]

    def _turns(self, question: Question) -> list[Turn]:
        """The conversation that an answer continues."""
        return with_system([Turn("user", question.prompt)], self.config.system)
