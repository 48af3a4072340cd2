"""Text while it is being generated.

Unusual: all tokens so far are decoded each time and only the certain beginning is handed on, so the pieces
always join to exactly the final text; a token may be half a character, or change how the one before it reads.
It knows neither model nor tokenizer.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Int
from torch import Tensor
from transformers.generation import BaseStreamer

_HALF_A_CHARACTER = "\ufffd"


class TextStream(BaseStreamer):
    """Receives tokens from the model's generate and writes text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], write: Callable[[str], object]) -> None:
        """Starts with nothing written.

        Args:
            decode: the text of all new tokens.
            write: takes the next piece.
        """
        self.decode = decode
        self.write = write
        self.tokens: list[int] = []
        self.written = ""
        self._prompt_seen = False

    def put(self, value: Int[Tensor, "*rows tokens"]) -> None:
        """Takes the prompt first, shape (1, T), then each new token, shape (1)."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.tokens += value.flatten().tolist()
        text = self.decode(self.tokens)
        self._advance(text[: _certain_length(text)])

    def end(self) -> None:
        """Writes what is left."""
        self._advance(self.decode(self.tokens))

    def _advance(self, text: str) -> None:
        """Writes the part of the text that is new."""
        if len(text) > len(self.written) and text.startswith(self.written):
            self.write(text[len(self.written) :])
            self.written = text


def _certain_length(text: str) -> int:
    """How much of a text no later token changes: up to the last word, nothing from a half character on."""
    whole = text.split(_HALF_A_CHARACTER, 1)[0]
    return max(whole.rfind(" "), whole.rfind("\n")) + 1 if whole else 0
