"""What an ImageBind-LLM is shown: files and texts of every modality, mixed with weights, row by row.

It stands where ``Sight`` stands for images alone. A tower is loaded with the first input of its modality.
Unusual: rows of one batch may hold different modalities and numbers of inputs; each row is mixed by itself,
so a batch gives what its rows give alone.

Dimensions: R rows, E width of the shared space.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.mixing import Rule, mix
from imagebind_llm.processing.processor import TOWERS, ImageBindProcessor, to_device
from llama_adapter.errors import UserError
from llama_adapter.multimodal.inputs import Mix, WeightedInput
from llama_adapter.multimodal.sight import KEPT_IMAGES, Sight


class Senses(Sight):
    """Shows a model inputs by their files."""

    rule: Rule = "published"
    """What becomes of the length of a mix."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As ``Sight``; the model's encoder settings name the ImageBind folder."""
        super().__init__(*arguments, **options)
        self._towers: dict[str, ImageBindModel] = {}
        self._embedded: dict[tuple[str, Any], Float[Tensor, " E"]] = {}

    def inputs(self, images: Sequence[Any]) -> dict[str, Shaped[Tensor, "R ..."]]:
        """What the model takes beside the tokens of R rows.

        Args:
            images: each row's ``Mix``, or its one image as a file or a picture of Pillow; None for a row of
                text alone.

        Returns:
            ``features`` (R, 1, E) and ``feature_mask`` (R, 1); nothing where no row has an input.

        Raises:
            UserError: a file cannot be used, a tower is missing, or weights cancel each other.
        """
        rows = [None if image is None else _as_mix(image) for image in images]
        if not any(rows):
            return {}
        embedded = self._embed([one for row in rows if row is not None for one in row.inputs])
        mixed = [None if row is None else self._mixed(row, embedded) for row in rows]
        first = next(vector for vector in mixed if vector is not None)
        vectors = [first.new_zeros(first.shape) if vector is None else vector for vector in mixed]
        return self._batch(torch.stack(vectors)[:, None], [vector is not None for vector in mixed])

    def prepare(self, images: Sequence[str], progress: bool = False) -> None:
        """Nothing: embeddings are small and kept in memory."""

    def _mixed(self, row: Mix, embedded: dict[tuple[str, Any], Float[Tensor, " E"]]) -> Float[Tensor, " E"]:
        """The embedding of one row."""
        vectors = [embedded[_key(one)][None] for one in row.inputs]
        return mix(vectors, [one.weight for one in row.inputs], self.rule)[0]

    @torch.no_grad()
    def _embed(self, given: Sequence[WeightedInput]) -> dict[tuple[str, Any], Float[Tensor, " E"]]:
        """The embedding of every input, before it is normalised; what is new is computed tower by tower."""
        found = {_key(one): self._embedded[_key(one)] for one in given if _key(one) in self._embedded}
        by_tower: dict[str, dict[tuple[str, Any], Any]] = {}
        for one in given:
            if _key(one) not in found:
                by_tower.setdefault(_key(one)[0], {})[_key(one)] = one.content
        for tower, contents in by_tower.items():
            values = self._processor({tower: list(contents.values())})
            model = self._tower(tower)
            features = model(to_device(values, model.device)).features[tower]
            found |= dict(zip(contents, features, strict=True))
        self._embedded = dict(list({**self._embedded, **found}.items())[-KEPT_IMAGES:])
        return found

    @property
    def _folder(self) -> str:
        """The ImageBind folder."""
        if self.model.encoder_config is None:
            raise UserError(
                "The adapter names no encoder. Use one that was trained with `vision.kind: imagebind`."
            )
        return self.model.encoder_config.name_or_path

    @property
    def _processor(self) -> ImageBindProcessor:
        return ImageBindProcessor.from_pretrained(self._folder)

    def _tower(self, name: str) -> ImageBindModel:
        """The model with one tower, loaded at its first use."""
        if name not in self._towers:
            loaded = ImageBindModel.from_pretrained(self._folder, modalities=[name]).eval()
            device: Any = next(self.model.conditioner.parameters()).device
            self._towers[name] = loaded.to(device)
        return self._towers[name]


def _as_mix(image: Any) -> Mix:
    """A row's inputs."""
    return image if isinstance(image, Mix) else Mix((WeightedInput("image", image),))


def _key(one: WeightedInput) -> tuple[str, Any]:
    """What tells an input from others: its tower and its content."""
    content = one.content if isinstance(one.content, str) else id(one.content)
    return TOWERS.get(one.modality, one.modality), content
