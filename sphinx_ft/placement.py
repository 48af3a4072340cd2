"""Where the tokens of images stand in a row of text tokens.

As published all images follow the first token, the one that begins a text; what marked their places in the
text is dropped. The other way is that they stand where the placeholder is. No pixels are needed: how many
tokens an image has follows from its size. Source: docs/sources/sphinx.md#image-tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llama_adapter.data.encoding import IGNORE
from llama_adapter.errors import UserError
from sphinx_ft.config import Places, SphinxConfig


@dataclass(frozen=True, kw_only=True)
class PlacementRule:
    """How images are placed."""

    image_token_id: int
    """Stands for an image in a text, once, and in the result for each of its tokens."""
    places: Places = "after_bos"
    """Behind the first token, or where the text has ``image_token_id``."""
    bos_token_id: int | None = None
    """The token that begins texts; in a text without it images stand in front."""

    @classmethod
    def of(cls, config: SphinxConfig, bos_token_id: int | None) -> "PlacementRule":
        """The rule of a model, with a tokenizer's begin token."""
        return cls(
            image_token_id=config.image_token_id, places=config.image_places, bos_token_id=bos_token_id
        )


def place_images(tokens: Sequence[int], lengths: Sequence[int], rule: PlacementRule) -> list[int]:
    """A row of tokens with those of its images.

    Args:
        tokens: of the text.
        lengths: tokens of each image, in order.
        rule: where they go.

    Raises:
        UserError: the text has another number of placeholders.
    """
    return [
        tokens[place] if place >= 0 else rule.image_token_id for place in places_of(tokens, lengths, rule)
    ]


def place_labels(
    tokens: Sequence[int], labels: Sequence[int], lengths: Sequence[int], rule: PlacementRule
) -> list[int]:
    """The labels that go with ``place_images``; image tokens have none."""
    return [labels[place] if place >= 0 else IGNORE for place in places_of(tokens, lengths, rule)]


def places_of(tokens: Sequence[int], lengths: Sequence[int], rule: PlacementRule) -> list[int]:
    """Of each place in the result its place in the text; -1 for image tokens."""
    marked = [place for place, token in enumerate(tokens) if token == rule.image_token_id]
    if rule.places == "after_bos":
        start = 1 if len(tokens) and tokens[0] == rule.bos_token_id else 0
        text = [place for place in range(len(tokens)) if tokens[place] != rule.image_token_id]
        return text[:start] + [-1] * sum(lengths) + text[start:]
    if len(marked) != len(lengths):
        raise UserError(
            f"The text has {len(marked)} placeholders, but {len(lengths)} images came. "
            "Use one placeholder for each image."
        )
    ahead = dict(zip(marked, lengths, strict=True))
    return [place for at in range(len(tokens)) for place in ([-1] * ahead[at] if at in ahead else [at])]
