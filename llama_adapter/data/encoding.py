"""Text to token ids with exact character offsets, and from there to labels.

Unusual: the tokenizer's own offsets are not taken as they come. Byte-level tokenizers report them without the
white space a token holds, which would hide that `` Paris`` swallowed the blank in front of it; so a copy of
the tokenizer without its post-processor is used, and the begin token is added here, once. Where one token
would cover the end of a prompt *and* the beginning of an answer the text is cut there: the model is shown
exactly the prompt's tokens at inference, and labels cover the answer to the character.
"""

import copy
import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from llama_adapter.data.template_base import Rendered, Span, lifted_media
from llama_adapter.errors import UserError

IGNORE = -100
"""The label of a token without loss."""


@dataclass
class Encoded:
    """One text as tokens."""

    ids: list[int]
    """Token ids."""
    offsets: list[Span]
    """For each token the characters it stands for; empty spans for tokens that stand for none."""

    def extend(self, other: "Encoded", shift: int, start: int = 0) -> None:
        """Append the tokens, from ``start`` on, of a text that begins ``shift`` characters later."""
        self.ids += other.ids[start:]
        self.offsets += [(first + shift, last + shift) for first, last in other.offsets[start:]]


def _fast_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of the tokenizer's engine that reports true offsets and is in nobody else's hands."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UserError(
            f"the tokenizer {type(tokenizer).__name__} of {tokenizer.name_or_path!r} reports no character "
            "offsets, so labels could not be exact. Use a fast one: a folder with tokenizer.json, or with "
            "tokenizer.model and the sentencepiece package."
        )
    backend = copy.deepcopy(backend)
    backend.no_truncation()
    backend.no_padding()
    backend.post_processor = None
    return backend


def _begin_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids the tokenizer puts in front of a text by itself."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    starts = (at for at in range(len(full) - len(bare) + 1) if full[at : at + len(bare)] == bare)
    return list(full[: next(starts, 0)])


class Encoder:
    """Encodes rendered text for training and prompts for inference, by the same rules."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, media_token_id: int | None = None) -> None:
        """Takes a copy of the tokenizer's engine.

        Args:
            tokenizer: a fast one.
            media_token_id: what stands in the place of each medium of a text; None where none does.

        Raises:
            UserError: the tokenizer is none of the fast ones.
        """
        self.media_token_id = media_token_id
        self.backend = _fast_backend(tokenizer)
        self.begin = _begin_ids(tokenizer)
        added = tokenizer.added_tokens_decoder.values()
        self.control = {str(token) for token in added if token.special} | set(tokenizer.all_special_tokens)
        self.guard = self._find_guard([tokenizer.eos_token, tokenizer.bos_token, "\x01", "\n"])

    @property
    def begin_id(self) -> int | None:
        """The token that begins a text, if one does."""
        return next(iter(self.begin), None)

    @property
    def identity(self) -> str:
        """Everything that decides the ids, for cache keys."""
        media = "" if self.media_token_id is None else f"{self.media_token_id} "
        return (
            f"{media}{self.begin} {self.guard} {hashlib.sha256(self.backend.to_str().encode()).hexdigest()}"
        )

    def _find_guard(self, candidates: Sequence[str | None]) -> str | None:
        """A text after which others are encoded without the blank that some tokenizers put first."""
        for guard in filter(None, candidates):
            middle, blank = (self._after(guard, text) for text in ("x", " x"))
            if middle and blank and not str(self.backend.id_to_token(middle.ids[0])).startswith(("▁", "Ġ")):
                return str(guard)
        return None

    def _after(self, guard: str, text: str) -> Encoded | None:
        """Encode a text as in mid-sentence; None if a token covers both guard and text."""
        encoded = self._plain(guard + text)
        at = bisect_left([first for first, _ in encoded.offsets], len(guard))
        if at == len(encoded.ids) or encoded.offsets[at][0] != len(guard) or _covered(encoded, len(guard)):
            return None
        result = Encoded([], [])
        result.extend(encoded, -len(guard), at)
        return result

    def _plain(self, text: str) -> Encoded:
        """Encode a text as the tokenizer does, without begin token."""
        encoding = self.backend.encode(text, add_special_tokens=False)
        return Encoded(encoding.ids, encoding.offsets)

    def _begun(self, encoded: Encoded, add_special_tokens: bool) -> Encoded:
        """Put the begin token in front unless the text brought its own."""
        begin = self.begin if add_special_tokens else []
        if begin and encoded.ids[: len(begin)] == begin:
            return encoded
        return Encoded([*begin, *encoded.ids], [(0, 0)] * len(begin) + encoded.offsets)

    def encode(self, rendered: Sequence[Rendered], add_special_tokens: bool) -> list[Encoded]:
        """Encode training texts.

        Args:
            rendered: what a template made.
            add_special_tokens: whether the begin token is still missing (``Template.add_special_tokens``).

        Returns:
            Tokens, none of which covers the beginning of an answer together with what is in front of it.
        """
        encodings = self.backend.encode_batch([one.text for one in rendered], add_special_tokens=False)
        plain = (Encoded(encoding.ids, encoding.offsets) for encoding in encodings)
        return [
            self._begun(self._with_media(one, self._cut(one, encoded)), add_special_tokens)
            for one, encoded in zip(rendered, plain, strict=True)
        ]

    def encode_prompt(self, text: str, add_special_tokens: bool) -> list[int]:
        """Encode a prompt for generation: the ids that training sequences with this prompt begin with.

        Args:
            text: what ``Template.render_prompt`` gave; with a ``media_token_id`` each placeholder in it is
                the place of a medium.
            add_special_tokens: ``Template.add_special_tokens``.

        Returns:
            Token ids, with the begin token but never with an end token.
        """
        if self.media_token_id is None:
            return self._begun(self._plain(text), add_special_tokens).ids
        (encoded,) = self.encode([lifted_media(Rendered(text))], add_special_tokens)
        return encoded.ids

    def _with_media(self, rendered: Rendered, encoded: Encoded) -> Encoded:
        """Put the token for media where they stand; it stands for no characters."""
        if self.media_token_id is None or not rendered.media:
            return encoded
        starts = [first for first, _ in encoded.offsets]
        begin = len(self.begin) if encoded.ids[: len(self.begin)] == self.begin else 0
        for place in reversed(rendered.media):
            at = max(bisect_left(starts, place), begin)
            encoded.ids.insert(at, self.media_token_id)
            encoded.offsets.insert(at, (place, place))
        return encoded

    def _cut(self, rendered: Rendered, encoded: Encoded) -> Encoded:
        """Encode anew, in parts, where a token covers a border of an answer."""
        borders = sorted(
            {first for first, _ in rendered.answers} | set(rendered.open_ends) | set(rendered.media)
        )
        cuts: set[int] = set()
        while covered := {border for border in borders if _covered(encoded, border)} - cuts:
            cuts |= covered
            parts = self._parts(rendered.text, sorted(cuts))
            if parts is None:
                return encoded
            encoded = parts
        return encoded

    def _parts(self, text: str, cuts: list[int]) -> Encoded | None:
        """Encode a text in parts; None if this tokenizer cannot encode a part as in mid-sentence."""
        result = self._plain(text[: cuts[0]])
        for first, last in zip(cuts, [*cuts[1:], len(text)], strict=True):
            part = self._after(self.guard, text[first:last]) if self.guard else None
            if part is None:
                return None
            result.extend(part, first)
        return result


def _covered(encoded: Encoded, border: int) -> bool:
    """Whether one token stands for characters on both sides of a border."""
    at = bisect_left(encoded.offsets, (border, 0)) - 1
    return at >= 0 and encoded.offsets[at][1] > border


def answer_labels(encoded: Encoded, answers: Sequence[Span]) -> list[int]:
    """Labels of a sequence: the id where a token stands for a part of an answer, else ``IGNORE``.

    Args:
        encoded: the tokens.
        answers: spans of the answers with their end tokens, in order.

    Returns:
        One label per token.
    """
    labels = [IGNORE] * len(encoded.ids)
    for first, last in answers:
        at = max(bisect_left(encoded.offsets, (first, 0)) - 1, 0)
        while at < len(labels) and encoded.offsets[at][0] < last:
            if first < encoded.offsets[at][1] and encoded.offsets[at][0] < encoded.offsets[at][1]:
                labels[at] = encoded.ids[at]
            at += 1
    return labels
