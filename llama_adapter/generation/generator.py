"""From prompts to answers: rendering, left padding, the model's own generate, cutting at the end token.

Unusual: rows of a batch are padded on the left, so that a prompt's answer does not depend on its neighbours;
the text of an answer is decoded behind the prompt's last token, which keeps a leading space. Sampling leaves
torch's random state as it found it, and the model its training mode. This file does not load models; of
adapters it knows the names, where prompts of one batch go through different ones, and of images the files.

Letters: B prompts, T tokens.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Int
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from llama_adapter.data import Encoder, Turn, load_template
from llama_adapter.data.encoding import IGNORE
from llama_adapter.data.records import RecordProblem
from llama_adapter.data.saved_template import default_template
from llama_adapter.errors import UserError
from llama_adapter.generation.config import SamplingConfig
from llama_adapter.generation.streaming import TextStream
from llama_adapter.multimodal.sight import Seeing

_log = logging.getLogger(__name__)


class Generator:
    """A model, its tokenizer and the template that its prompts are written in."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        template: str | None = None,
        sight: Seeing | None = None,
    ) -> None:
        """Prepares the template.

        Args:
            model: a causal language model, with or without adapters.
            tokenizer: its tokenizer.
            template: `chat`, `alpaca`, `plain`; None is the tokenizer's own, or plain where it has none.
            sight: shows the model images; None for one that sees none.

        Raises:
            UserError: there is no such template, or the tokenizer lacks what it needs.
        """
        self.model = model
        self.sight = sight
        self.whole: PreTrainedModel | PeftModel = model if sight is None else sight.model
        """What is run: the model, or with sight the image-conditioned model around it."""
        self.tokenizer = tokenizer
        self.template_name = template or default_template(tokenizer)
        self.template = load_template(self.template_name, tokenizer)
        # the one that training uses, so that a prompt has the same tokens
        self.encoder = Encoder(tokenizer, None if sight is None else sight.media_token_id)

    def generate(
        self,
        prompts: Sequence[str],
        settings: SamplingConfig | None = None,
        adapters: Sequence[str] | None = None,
    ) -> list[str]:
        """Answers each prompt, `settings.batch_size` at once.

        Args:
            prompts: what the user says, before any template.
            settings: greedy by default.
            adapters: name of the adapter that answers each prompt, `__base__` for none; by default the active
                one answers all.

        Returns:
            The answers without prompt and end token, in the order of the prompts.

        Raises:
            UserError: a prompt does not fit the template or the model's context, or an adapter is unknown.
        """
        return self.answer([[Turn("user", prompt)] for prompt in prompts], settings, adapters)

    def answer(
        self,
        conversations: Sequence[Sequence[Turn]],
        settings: SamplingConfig | None = None,
        adapters: Sequence[str] | None = None,
        images: Sequence[Any] | None = None,
        tools: Sequence[Sequence[dict[str, Any]]] | None = None,
    ) -> list[str]:
        """Continues each conversation with the assistant's turn; otherwise as :meth:`generate`.

        Args:
            conversations: each ends with the user's turn.
            settings: see there.
            adapters: see there.
            images: of each conversation, as ``Sight.inputs`` takes them; None for none, the default.
            tools: of each conversation, the functions that may be called; none by default.

        Raises:
            UserError: see there; or an image came for a model that sees none, or cannot be read.
        """
        settings = settings or SamplingConfig()
        if adapters is not None:
            self._check_adapters(adapters, len(conversations))
        answers: list[str] = []
        for start in range(0, len(conversations), settings.batch_size):
            batch = slice(start, start + settings.batch_size)
            shown = list(images[batch]) if images is not None else [None] * len(conversations[batch])
            offered = list(tools[batch]) if tools is not None else [()] * len(shown)
            rows = [self.encode(*one) for one in zip(conversations[batch], shown, offered, strict=True)]
            names = None if adapters is None else list(adapters[batch])
            seen = self.seen(shown)
            new = self._continue(rows, settings, adapters=names, seen=seen)
            answers += [self._text(row, tokens) for row, tokens in zip(rows, new, strict=True)]
        return answers

    def stream(
        self,
        turns: Sequence[Turn],
        settings: SamplingConfig,
        write: Callable[[str], object],
        image: Any = None,
    ) -> str:
        """Answers one conversation and hands on the text as soon as it is certain.

        Args:
            turns: a conversation that ends with the user's turn.
            settings: how tokens are chosen.
            write: called with each piece; the pieces together are the answer.
            image: what is shown with it: a file, a picture of Pillow or a ``Mix``.

        Returns:
            The whole answer.
        """
        row = self.encode(turns, image)
        stream = TextStream(lambda tokens: self._text(row, self._cut(tokens)), write)
        (tokens,) = self._continue([row], settings, stream, seen=self.seen([image]))
        return self._text(row, tokens)

    def encode(
        self, turns: Sequence[Turn], image: Any = None, tools: Sequence[dict[str, Any]] = ()
    ) -> list[int]:
        """The tokens that the model is shown for a conversation, those that stand for its image included.

        Args:
            turns: a conversation that ends with the user's turn.
            image: what is shown with it; None for nothing.
            tools: functions that may be called.

        Raises:
            UserError: the template has no place for the conversation, or it has no tokens at all.
        """
        try:
            text = self.template.render_prompt(self.read(turns, image), tools)
        except RecordProblem as problem:
            raise UserError(f"{problem}. Use another --template, or other prompts.") from problem
        tokens = self.encoder.encode_prompt(text, self.template.add_special_tokens)
        if not tokens and self.tokenizer.bos_token_id is not None:
            tokens = [self.tokenizer.bos_token_id]
        if not tokens:
            raise UserError(f"The prompt {text!r} has no tokens. Use a longer one.")
        ids, _ = self.placed(tokens, [], image)
        return ids

    def read(self, turns: Sequence[Turn], image: Any) -> Sequence[Turn]:
        """A conversation as the model reads it beside an image."""
        return turns if image is None or self.sight is None else self.sight.read(turns, image)

    def placed(self, tokens: Sequence[int], labels: Sequence[int], image: Any) -> tuple[list[int], list[int]]:
        """Tokens and labels, or no labels, of a text with what stands for its image."""
        if image is None or self.sight is None or self.sight.media_token_id is None:
            return list(tokens), list(labels)
        mark, places = self.sight.media_token_id, self.sight.places(tokens, image)
        return (
            [tokens[place] if place >= 0 else mark for place in places],
            [labels[place] if place >= 0 else IGNORE for place in places] if labels else [],
        )

    def seen(self, images: Sequence[Any]) -> dict[str, Any]:
        """What the model takes of the images of a batch, beside the tokens.

        Raises:
            UserError: an image came for a model that sees none, or cannot be read.
        """
        given = [image for image in images if image is not None]
        if not given:
            return {}
        if self.sight is None:
            raise UserError(
                f"The image {given[0]!r} came to a model without conditioner, which sees none. "
                "Use an adapter that was trained with images, or leave the image out."
            )
        return dict(self.sight.inputs(images))

    def _check_adapters(self, adapters: Sequence[str], prompts: int) -> None:
        """Refuses what PEFT would not notice."""
        if len(adapters) != prompts:
            raise UserError(f"There are {len(adapters)} adapters for {prompts} prompts. Use one for each.")
        if not getattr(self.model, "has_active_enabled_adapter", False):
            raise UserError(
                f"adapters is {list(adapters)!r}, but the model has no adapters, or they are off. "
                f"Use a PeftModel whose adapters are enabled."
            )

    def _continue(
        self,
        rows: list[list[int]],
        settings: SamplingConfig,
        streamer: TextStream | None = None,
        adapters: list[str] | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> list[list[int]]:
        """The new tokens of each row, up to and without its end token."""
        room = self._room(max(map(len, rows)), settings.max_new_tokens)
        input_ids, attention_mask = left_pad(rows, self._pad_id(), self.model.device)
        with _evaluating(self.whole), _seeded(settings.seed):
            output = cast(Any, self.whole).generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                generation_config=self._generation_config(settings, room),
                streamer=streamer,
                tokenizer=self.tokenizer,  # for stop_strings
                **({} if adapters is None else {"adapter_names": adapters}),
                **(seen or {}),
            )
        return [self._cut(tokens) for tokens in output[:, input_ids.shape[1] :].tolist()]

    def _generation_config(self, settings: SamplingConfig, max_new_tokens: int) -> GenerationConfig:
        """Every choice is ours; what the model's own file says about sampling is not used."""
        drawn = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=settings.temperature > 0,
            repetition_penalty=settings.repetition_penalty,
            eos_token_id=sorted(self._stop_ids()),
            pad_token_id=self._pad_id(),
            bos_token_id=self.tokenizer.bos_token_id,
            stop_strings=self._stop_texts(),
            use_cache=True,
            **(drawn if settings.temperature > 0 else {}),
        )

    def _stop_ids(self) -> set[int]:
        """The template's end token, the tokenizer's, and those the model declares."""
        declared = getattr(self.model.generation_config, "eos_token_id", None)
        declared = declared if isinstance(declared, list) else [declared]
        ends = [self._end_id, self.tokenizer.eos_token_id, *declared]
        return {token for token in ends if token is not None}

    @cached_property
    def _end_id(self) -> int | None:
        """The template's end, where it is one token."""
        found: int | None = self.tokenizer.get_vocab().get(self.template.end_token)
        return found

    def _stop_texts(self) -> list[str] | None:
        """The template's end, where it is several tokens."""
        return None if self._end_id is not None else [self.template.end_token]

    def _pad_id(self) -> int:
        """The id that fills rows on the left, where nothing attends to it."""
        if self.tokenizer.pad_token_id is not None:
            return int(self.tokenizer.pad_token_id)
        return min(self._stop_ids())

    def _room(self, prompt_length: int, wanted: int) -> int:
        """How many new tokens fit behind a prompt.

        Raises:
            UserError: none do.
        """
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context is None or prompt_length + wanted <= context:
            return wanted
        if prompt_length >= context:
            raise UserError(
                f"A prompt has {prompt_length} tokens, the model's context {context}. Use a shorter one."
            )
        _log.warning(
            "max_new_tokens=%d behind %d prompt tokens exceeds the model's context of %d; it is %d here.",
            wanted,
            prompt_length,
            context,
            context - prompt_length,
        )
        return int(context - prompt_length)

    def _cut(self, tokens: Sequence[int]) -> list[int]:
        """The tokens before the first end token."""
        stops = self._stop_ids()
        end = next((place for place, token in enumerate(tokens) if token in stops), len(tokens))
        return list(tokens[:end])

    def _text(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """The text of new tokens as it reads behind the prompt's last token, up to the template's end."""
        before = self._decode(prompt[-1:])
        joined = self._decode([*prompt[-1:], *tokens])
        text = joined[len(before) :] if joined.startswith(before) else self._decode(tokens)
        return self.template.answer_text(text)

    def _decode(self, tokens: Sequence[int]) -> str:
        """Text without special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


def left_pad(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device | None = None
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Stacks rows of tokens so that all end at the same place.

    Args:
        rows: token ids of each prompt.
        pad_id: fills the left.
        device: where the tensors go.

    Returns:
        Token ids, and 1 where they are a prompt's, both of shape (B, T).
    """
    length = max(len(row) for row in rows)
    input_ids = [[pad_id] * (length - len(row)) + list(row) for row in rows]
    attention_mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(input_ids, device=device), torch.tensor(attention_mask, device=device)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode before comes back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Fixed random state inside, the old one outside; nothing when the seed is None."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
