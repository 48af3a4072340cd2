"""What an ImageBind-LLM is shown: files and texts of every modality, mixed with weights, row by row.

It stands where ``Sight`` stands for images alone. A tower is loaded with the first input of its modality.
Unusual: rows of one batch may hold different modalities and numbers of inputs; each row is mixed by itself,
so a batch gives what its rows give alone.

Dimensions: R rows, E width of the shared space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.loading import Key, LoadedMixes, input_key, load_mixes
from imagebind_llm.mixing import mix
from imagebind_llm.processing.processor import ImageBindProcessor, to_device
from imagebind_llm.vision_tower import IMAGES, ImageBindTower
from llama_adapter.errors import UserError
from llama_adapter.media import MediaItem, Mix
from llama_adapter.multimodal.sight import KEPT_IMAGES, Sight


class Senses(Sight):
    """Shows a model inputs by their files."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As ``Sight``; the model's encoder settings name the ImageBind folder."""
        super().__init__(*arguments, **options)
        self._towers: dict[str, ImageBindModel] = {}
        self._embedded: dict[Key, Float[Tensor, " E"]] = {}

    def inputs(self, images: Sequence[Any]) -> dict[str, Shaped[Tensor, "R ..."]]:
        """What the model takes beside the tokens of R rows; embeddings of files are kept.

        Args:
            images: each row's ``Mix``, or its one image as a file or a picture of Pillow; None for a row of
                text alone.

        Returns:
            ``features`` (R, 1, E) and ``feature_mask`` (R, 1); nothing where no row has an input.

        Raises:
            UserError: a file cannot be used, a tower is missing, or weights cancel each other.
        """
        rows = [image if image is None else _of_image(image) for image in images]
        if not any(rows):
            return {}
        made = self._embed(load_mixes(rows, self.processor, self._embedded))
        embedded = {**self._embedded, **made}
        files = [(key, vector) for key, vector in embedded.items() if isinstance(key[1], str)]
        self._embedded = dict(files[-KEPT_IMAGES:])
        return self._mixed(rows, embedded)

    def loaded(self, mixes: LoadedMixes) -> dict[str, Shaped[Tensor, "R ..."]]:
        """As ``inputs``, of files that were read already.

        Raises:
            UserError: a tower is missing, or weights cancel each other.
        """
        return self._mixed(mixes.rows, self._embed(mixes)) if any(mixes.rows) else {}

    def prepare(self, images: Sequence[str], progress: bool = False) -> None:
        """Nothing: embeddings are small and kept in memory."""

    @property
    def processor(self) -> ImageBindProcessor:
        """Reads files as the ImageBind folder says."""
        return ImageBindProcessor.from_pretrained(self._folder)

    @torch.no_grad()
    def _embed(self, mixes: LoadedMixes) -> dict[Key, Float[Tensor, " E"]]:
        """The embedding of every input that was read, before it is normalised, tower by tower."""
        found: dict[Key, Float[Tensor, " E"]] = {}
        for name, values in mixes.values.items():
            model = self._tower(name)
            features = model(to_device({name: values}, model.device)).features[name]
            found |= dict(zip(mixes.keys[name], features, strict=True))
        return found

    def _mixed(
        self, rows: Sequence[Mix | None], embedded: Mapping[Key, Float[Tensor, " E"]]
    ) -> dict[str, Shaped[Tensor, "R ..."]]:
        """The model's inputs: each row's embeddings, mixed by themselves."""
        mixed = [None if row is None else self._mix(row, embedded) for row in rows]
        first = next(vector for vector in mixed if vector is not None)
        vectors = [first.new_zeros(first.shape) if vector is None else vector for vector in mixed]
        return self._batch(torch.stack(vectors)[:, None], [vector is not None for vector in mixed])

    def _mix(self, row: Mix, embedded: Mapping[Key, Float[Tensor, " E"]]) -> Float[Tensor, " E"]:
        """The embedding of one row."""
        vectors = [embedded[input_key(one)][None] for one in row.inputs]
        return mix(vectors, [one.weight for one in row.inputs], self.mixing)[0]

    @property
    def _folder(self) -> str:
        """The ImageBind folder."""
        if self.model.encoder_config is None:
            raise UserError(
                "The adapter names no encoder. Use one that was trained with `vision.kind: imagebind`, or "
                "convert it with --encoder."
            )
        return self.model.encoder_config.name_or_path

    def _tower(self, name: str) -> ImageBindModel:
        """The model with one tower, loaded at its first use; that of images may be the model's encoder."""
        if name not in self._towers:
            encoder: Any = self.model.encoder
            shared = name == IMAGES and encoder is not None and isinstance(encoder.tower, ImageBindTower)
            self._towers[name] = (
                encoder.tower.model
                if shared
                else ImageBindModel.from_pretrained(self._folder, modalities=[name]).eval()
            )
        device: Any = next(self.model.conditioner.parameters()).device
        return self._towers[name].to(device)


def _of_image(image: Any) -> Mix:
    """A row's inputs."""
    return image if isinstance(image, Mix) else Mix((MediaItem("image", image),))
