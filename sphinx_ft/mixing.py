"""Several encoders as one: views in, features of one common grid out, and tokens of query encoders.

Every encoder is run once for all views of all images. Frozen encoders stay in evaluation mode and keep
nothing for the backward pass. Those whose weights are named elsewhere are read with the first image, and are
no part of the model's state. The language model is not known here.

Dimensions: I images, V views of each, P useful views of all, S side of the padded square in pixels, G places
of the common grid and one summary, C width, Q queries, h and w places of an encoder's grid.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor, nn

from llama_adapter.errors import UserError
from llama_adapter.file_formats.safetensors_file import read_tensors
from llama_adapter.whole_loads import Misfit, not_finite, refuse
from sphinx_ft.encoders.base import EncoderConfig, GridEncoder, GridOutput, QueryEncoder
from sphinx_ft.encoders.registry import make_encoder
from sphinx_ft.views import CLIP_MEAN, CLIP_STD, ViewConfig, cut_views, resize


@dataclass(frozen=True, eq=False)
class MixedFeatures:
    """What the encoders make of views."""

    mixed: Float[Tensor, "P G C"] | None
    """Channels of all grid encoders side by side, the summary first; None without such encoders."""
    queries: Mapping[str, Float[Tensor, "P _ _"]] = field(default_factory=dict)
    """Tokens (P, Q, C) of each query encoder, by its name."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MixedFeatures":
        """The same on a device."""
        moved = {name: tokens.to(device, non_blocking=non_blocking) for name, tokens in self.queries.items()}
        mixed = None if self.mixed is None else self.mixed.to(device, non_blocking=non_blocking)
        return MixedFeatures(mixed, moved)


class EncoderMix(nn.Module):
    """The encoders of a model, in the order of their channels."""

    def __init__(self, configs: Sequence[EncoderConfig], views: ViewConfig, grid: int) -> None:
        """Make those whose weights are part of the model, frozen.

        Args:
            configs: of the encoders.
            views: what is cut out for them.
            grid: rows and columns of the common grid.

        Raises:
            UserError: two have one name, or one cannot be made.
        """
        super().__init__()
        names = [config.name for config in configs]
        if len(set(names)) < len(names):
            raise UserError(f"The encoders of the mix are called {names}. Use a name of its own for each.")
        self.configs, self.views, self.grid = list(configs), views, grid
        self.members = nn.ModuleDict(
            {config.name: make_encoder(config) for config in configs if not config.elsewhere}
        )
        self.requires_grad_(False)
        self._elsewhere: dict[str, GridEncoder | QueryEncoder] = {}  # a plain dict: no part of the state
        widths = {config.name: self._width(config) for config in configs}
        self.query_widths = {one.name: widths[one.name] for one in configs if one.queries}
        self.mixed_width = sum(widths[one.name] for one in configs if not one.queries)
        self.train(self.training)  # modules begin in training mode

    def train(self, mode: bool = True) -> "EncoderMix":
        """Frozen encoders stay in evaluation mode, but those whose dropout is to be active."""
        super().train(mode)
        for config in self.configs:
            if config.name in self.members and not config.dropout and not _trains(self.members[config.name]):
                self.members[config.name].train(False)
        return self

    def forward(self, squares: Float[Tensor, "I 3 S S"], useful: Bool[Tensor, "I V"]) -> MixedFeatures:
        """Features of the useful views, image by image.

        Args:
            squares: padded pictures with CLIP's normalisation.
            useful: which views are encoded.

        Raises:
            UserError: an encoder's weights cannot be read.
        """
        return MixedFeatures(self.mixed(squares, useful), self.queries(squares, useful))

    def mixed(
        self, squares: Float[Tensor, "I 3 S S"], useful: Bool[Tensor, "I V"]
    ) -> Float[Tensor, "P G C"] | None:
        """Channels of the grid encoders, as ``forward`` gives them; None where there are none."""
        grids = [
            aligned(self._encode(config, squares, useful), self.grid, config.alignment)
            for config in self.configs
            if not config.queries
        ]
        return torch.cat(grids, dim=2) if grids else None

    def queries(
        self,
        squares: Float[Tensor, "I 3 S S"],
        useful: Bool[Tensor, "I V"],
        names: Collection[str] | None = None,
    ) -> dict[str, Float[Tensor, "P _ _"]]:
        """Tokens of the query encoders, as ``forward`` gives them; with ``names`` only of these."""
        return {
            config.name: self._encode(config, squares, useful)
            for config in self.configs
            if config.queries and (names is None or config.name in names)
        }

    def forget(self) -> None:
        """Free the encoders whose weights are elsewhere; the next picture reads them again."""
        self._elsewhere.clear()

    def take_in(self) -> None:
        """Make those whose weights are elsewhere part of the model, without these weights: to plan with."""
        for config in self.configs:
            if config.name not in self.members:
                self.members[config.name] = make_encoder(config)
        self.requires_grad_(False).train(self.training)

    def zeros(self, views: int, like: Float[Tensor, "..."]) -> MixedFeatures:
        """Features of so many views that show nothing at all."""
        mixed = like.new_zeros(views, 1 + self.grid**2, self.mixed_width) if self.mixed_width else None
        queries = {config.name: config.queries for config in self.configs if config.queries}
        return MixedFeatures(
            mixed,
            {name: like.new_zeros(views, count, self.query_widths[name]) for name, count in queries.items()},
        )

    def _width(self, config: EncoderConfig) -> int:
        """Channels of an encoder; of one whose weights are elsewhere without reading them."""
        if config.name in self.members:
            return int(self.members[config.name].width)  # type: ignore[arg-type]
        with torch.device("meta"):
            return make_encoder(config).width

    def encoder(self, config: EncoderConfig, device: torch.device) -> GridEncoder | QueryEncoder:
        """One of the encoders, read now if its weights are named elsewhere.

        Raises:
            UserError: they cannot be read.
        """
        if config.name in self.members:
            return self.members[config.name]  # type: ignore[return-value]
        if config.name not in self._elsewhere:
            self._elsewhere[config.name] = load_named(config)
        return self._elsewhere[config.name].to(device)

    def move_out(self, folder: Path) -> None:
        """Write the weights that are part of the model to files of their own, which the configs then name."""
        folder.mkdir(parents=True, exist_ok=True)
        for config in self.configs:
            if config.name in self.members:
                path = folder / f"{config.name}.safetensors"
                member: Any = self.members.pop(config.name)
                save_file({name: weight.contiguous() for name, weight in member.state_dict().items()}, path)
                config.weights = str(path)
                self._elsewhere[config.name] = member.requires_grad_(False).eval()

    def _encode(
        self,
        config: EncoderConfig,
        squares: Float[Tensor, "I 3 S S"],
        useful: Bool[Tensor, "I V"],
    ) -> Any:
        """One encoder's pass: ``GridOutput``, or tokens (P, Q, C) of a query encoder."""
        encoder = self.encoder(config, squares.device)
        views = cut_views(squares, useful, config.view_size, self.views)
        if config.input_size:
            views = resize(views, config.input_size, self.views.half_resize, mode="nearest")
        views = renormalised(views, encoder.mean, encoder.std)
        weight = next(encoder.parameters())
        with nullcontext() if _trains(encoder) else torch.no_grad():
            return encoder(views.to(weight.dtype))


def load_named(config: EncoderConfig) -> GridEncoder | QueryEncoder:
    """An encoder with the weights of the file or folder that its config names, frozen.

    Raises:
        UserError: there is no such file, or it does not fit.
    """
    encoder = make_encoder(config)
    if config.weights is None:
        return encoder.requires_grad_(False).eval()  # its own settings have named them
    path = Path(config.weights)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    advice = "Use a safetensors file, or a folder of them, that move_out wrote."
    weights = {name: tensor for file in files for name, tensor in read_tensors(file, advice).items()}
    shapes = (
        {name: tuple(one.shape) for name, one in held.items()} for held in (encoder.state_dict(), weights)
    )
    misfit = replace(Misfit.of_shapes(*shapes), not_finite=not_finite(weights))
    refuse(misfit, (), config.weights, f"the encoder {config.name!r} of the settings")
    encoder.load_state_dict(weights)
    return encoder.requires_grad_(False).eval()


def aligned(output: GridOutput, side: int, alignment: str = "bilinear") -> Float[Tensor, "P G C"]:
    """Features on the common grid, the summary first; without a class token it is the mean of the places.

    Args:
        output: of an encoder.
        side: rows and columns of the common grid.
        alignment: ``bilinear``, or ``repeat`` for each place several times.
    """
    grid = output.grid
    if grid.shape[2:] != (side, side):
        if alignment == "repeat":
            grid = nn.functional.interpolate(grid, size=(side, side), mode="nearest")
        else:
            grid = nn.functional.interpolate(
                grid, size=(side, side), mode="bilinear", align_corners=False, antialias=True
            )
    places = grid.flatten(2).mT
    summary = places.mean(dim=1) if output.summary is None else output.summary
    return torch.cat([summary[:, None], places], dim=1)


def renormalised(
    pixels: Float[Tensor, "P 3 s s"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "P 3 s s"]:
    """From CLIP's normalisation to another."""
    if (tuple(mean), tuple(std)) == (CLIP_MEAN, CLIP_STD):
        return pixels

    def shade(values: Sequence[float]) -> Float[Tensor, "3 1 1"]:
        """One value per colour."""
        return torch.tensor(list(values), dtype=pixels.dtype, device=pixels.device).view(3, 1, 1)

    return (pixels * shade(CLIP_STD) + shade(CLIP_MEAN) - shade(mean)) / shade(std)


def _trains(module: nn.Module) -> bool:
    """Whether some of a module's parameters are trained."""
    return any(weight.requires_grad for weight in module.parameters())
