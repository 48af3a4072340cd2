"""lmms-eval's model `llama-adapter`: base, adapter, template and image encoder as `generate` loads them.

    python -m llama_adapter.evaluation.lmms_harness --model llama-adapter --model_args adapter=DIR --tasks ...

is lmms-eval's own command line with the model registered; importing this module registers it as well. Thin on
purpose: what is asked and how it is scored are lmms-eval's. It is one of its simple models: a request is a
text and the pictures of a document. Several pictures in one request are an error, as everywhere here. Videos
and conversations of several rounds are not known.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_adapter.data import Turn
from llama_adapter.errors import UserError
from llama_adapter.evaluation.likelihood import AnswerScorer
from llama_adapter.generation.config import SamplingConfig, SessionConfig
from llama_adapter.generation.session import Session

try:
    from lmms_eval.api.model import lmms
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.models.registry_v2 import ModelManifest
except ImportError as error:
    raise UserError(f"lmms-eval cannot be imported ({error}). Run: pip install lmms-eval") from error

_SETTINGS = ("base", "adapter", "template", "dtype", "quantization", "device", "system")


class LlamaAdapterLMM(lmms):
    """A base model with its adapter, for lmms-eval."""

    is_simple = True

    def __init__(self, batch_size: int | str = 1, **settings: Any) -> None:
        """Loads the model.

        Args:
            batch_size: requests answered at once.
            settings: ``adapter`` (its folder), ``base``, ``template``, ``dtype``, ``quantization``,
                ``device`` and ``system``, as ``generate`` takes them.

        Raises:
            UserError: base or adapter cannot be used, or a setting is unknown.
        """
        super().__init__()
        known = {name: value for name, value in settings.items() if name in _SETTINGS and value is not None}
        given = {name for name, value in settings.items() if value is not None}
        if unknown := sorted(given - {*_SETTINGS, "max_batch_size"}):
            raise UserError(f"The model has no setting {unknown[0]!r}. Use some of {', '.join(_SETTINGS)}.")
        adapters = [known.pop("adapter")] if "adapter" in known else []
        self.batch_size = int(batch_size)
        self.session = Session(SessionConfig(adapter=adapters, batch_size=self.batch_size, **known))
        self.generator = self.session.generator()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers requests, those of the same settings together.

        Args:
            requests: with the arguments context, settings, what gives a document's pictures, its number, task
                and split.

        Raises:
            UserError: a request has several pictures, or the model sees none.
        """
        answers: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(place)
        for places in groups.values():
            options = requests[places[0]].args[1]
            asked = [self._asked(requests[place].args[0], requests[place].args[2:]) for place in places]
            found = self.generator.answer(
                [turns for turns, _ in asked],
                self._sampling(options),
                images=[image for _, image in asked],
            )
            for place, answer in zip(places, found, strict=True):
                answers[place] = _cut(answer, options.get("until") or [])
                self.cache_hook.add_partial("generate_until", requests[place].args[:2], answers[place])
        return [answers[place] for place in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is what the model would write.

        Args:
            requests: with the arguments context, continuation (or what gives that of a document), what gives
                a document's pictures, its number, task and split.

        Raises:
            UserError: see ``generate_until``.
        """
        pairs, images = [], []
        for request in requests:
            context, target, *rest = request.args
            target = target if isinstance(target, str) else target(self._document(rest))
            turns, image = self._asked(context, rest)
            pairs.append((turns, target))
            images.append(image)
        values = AnswerScorer(self.generator).log_likelihoods(pairs, self.batch_size, images)
        longest = SamplingConfig(batch_size=self.batch_size, max_new_tokens=64)
        written = self.generator.answer([turns for turns, _ in pairs], longest, images=images)
        return [
            (value, answer.strip().startswith(target.strip()))
            for value, answer, (_, target) in zip(values, written, pairs, strict=True)
        ]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Conversations of several rounds are not known.

        Raises:
            UserError: always.
        """
        raise UserError(f"{len(requests)} requests have several rounds. Use tasks of one question each.")

    def _asked(self, context: str, rest: Sequence[Any]) -> tuple[list[Turn], Any]:
        """The conversation of a request, and its picture if it has one."""
        to_visuals: Callable[[Any], Any] | None = rest[0]
        pictures = to_visuals(self._document(rest)) if to_visuals is not None else None
        pictures = list(pictures or [])
        if len(pictures) > 1:
            raise UserError(f"Document {rest[1]} has {len(pictures)} pictures. Use tasks with one at most.")
        image = pictures[0] if pictures else None
        system = [Turn("system", self.session.config.system)] if self.session.config.system else []
        return [*system, Turn("user", context)], image

    def _document(self, rest: Sequence[Any]) -> Any:
        """The document that a request is about."""
        _, number, task, split = rest[:4]
        return self.task_dict[task][split][number]

    def _sampling(self, options: Mapping[str, Any]) -> SamplingConfig:
        """What a request says of sampling; lmms-eval's own defaults where it is silent."""
        temperature = options.get("temperature") or 0.0
        drawn = bool(options.get("do_sample", temperature > 0)) and temperature > 0
        return SamplingConfig(
            max_new_tokens=int(options.get("max_new_tokens", 256)),
            temperature=float(temperature) if drawn else 0.0,
            top_p=float(options.get("top_p") or 1.0),
            batch_size=self.batch_size,
        )


def _cut(answer: str, ends: Sequence[str] | str) -> str:
    """An answer up to the first of some texts."""
    for end in [ends] if isinstance(ends, str) else ends:
        answer = answer.split(end)[0] if end else answer
    return answer


MODEL_REGISTRY_V2.register_manifest(
    ModelManifest(
        model_id="llama-adapter", simple_class_path="llama_adapter.evaluation.lmms_harness.LlamaAdapterLMM"
    ),
    overwrite=True,
)


def main() -> None:
    """Runs lmms-eval's command line, with the model registered."""
    from lmms_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
