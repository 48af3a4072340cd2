"""What the encoders of a mix have in common: how each is fed, and what it gives.

There are two sorts. A *grid encoder* gives features of places, whose channels are joined with those of the
others; a *query encoder* gives tokens of its own, which are projected apart. Neither knows views, other
encoders or the language model.

Dimensions: P views, C width, h and w places of a grid, Q queries, s side of the input in pixels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from llama_adapter.errors import UserError
from sphinx_ft.views import CLIP_MEAN, CLIP_STD

TOWER = "tower"
"""Kind of the core's encoders, whose own settings name their weights."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(kw_only=True)
class EncoderConfig:
    """One encoder of a mix, and what it is shown."""

    kind: str
    """Which encoder; a name of ``registry.ENCODERS``."""
    name: str = ""
    """Its name in the mix; that of its kind where none is given."""
    view_size: int = 224
    """Side of the views that are cut out of the padded square for it, in pixels."""
    input_size: int = 0
    """Side of its input, if views are enlarged to it, by repeating pixels; 0 for ``view_size``."""
    alignment: Literal["bilinear", "repeat"] = "bilinear"
    """How a grid of another size becomes the common one: interpolated, or each place repeated."""
    queries: int = 0
    """Tokens of a query encoder; 0 for a grid encoder."""
    dropout: bool = False
    """Whether its dropout is active while the model is trained, although it is frozen: so it was for the
    Q-Former of SPHINX's 13B models."""
    weights: str | None = None
    """A file or folder of its weights; the model's own folder then does not hold them, and they are read with
    the first image. None where they are part of the model."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the encoder itself, where they are not the published ones; see the encoder's file."""

    def __post_init__(self) -> None:
        self.name = self.name or self.kind
        if "." in self.name:
            raise UserError(f"An encoder of the mix is called {self.name!r}. Use a name without a dot.")

    @property
    def elsewhere(self) -> bool:
        """Whether its weights are no part of the model's folder."""
        return self.weights is not None or self.kind == TOWER


@dataclass(frozen=True, eq=False)
class GridOutput:
    """What a grid encoder gives."""

    summary: Float[Tensor, "P C"] | None
    """The token of the whole view, if there is one."""
    grid: Float[Tensor, "P C h w"]
    """The features of places."""


class GridEncoder(nn.Module, ABC):
    """Pixels to features of places."""

    width: int
    """C."""
    mean: tuple[float, ...] = CLIP_MEAN
    """Of the colours of its input, in [0, 1]."""
    std: tuple[float, ...] = CLIP_STD
    """Likewise."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "P 3 s s"]) -> GridOutput:
        """One pass."""


class QueryEncoder(nn.Module, ABC):
    """Pixels to tokens of their own."""

    width: int
    """C."""
    mean: tuple[float, ...] = CLIP_MEAN
    """Of the colours of its input, in [0, 1]."""
    std: tuple[float, ...] = CLIP_STD
    """Likewise."""

    @abstractmethod
    def forward(self, pixels: Float[Tensor, "P 3 s s"]) -> Float[Tensor, "P Q C"]:
        """One pass."""


def settings_of(config: EncoderConfig, kind: type[Any]) -> Any:
    """An encoder's own settings.

    Args:
        config: of the encoder in the mix.
        kind: the dataclass.

    Raises:
        UserError: one has no such name, or a value that cannot be.
    """
    try:
        return kind(**config.settings)
    except TypeError as error:
        raise UserError(
            f"The settings {config.settings} do not go with the encoder {config.kind!r}: {error}. "
            f"Use fields of {kind.__name__}."
        ) from error


def as_grid(tokens: Float[Tensor, "P N C"], prefix: int = 1) -> GridOutput:
    """Of a class token, and others, followed by the patches of a square.

    Args:
        tokens: behind the encoder's last norm.
        prefix: tokens before the patches; the first is the class token. With 0 there is none.

    Raises:
        UserError: the patches are no square.
    """
    patches = tokens.shape[1] - prefix
    side = round(patches**0.5)
    if side * side != patches:
        raise UserError(f"An encoder gave {patches} patches. Use encoders whose patches are a square.")
    grid = tokens[:, prefix:].mT.unflatten(2, (side, side))
    return GridOutput(tokens[:, 0] if prefix else None, grid)
