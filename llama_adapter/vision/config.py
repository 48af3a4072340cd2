"""Which image encoder, and what is taken from it."""

from dataclasses import dataclass, field
from typing import Literal

from llama_adapter.errors import UserError


@dataclass(kw_only=True)
class VisionConfig:
    """An image encoder and its outputs."""

    kind: Literal["transformers", "open_clip", "timm", "imagebind"]
    """The library that has the encoder; ImageBind's is in `imagebind_llm`."""
    name_or_path: str
    """transformers: a folder or the name of a model on the hub (CLIP, SigLIP, DINOv2). imagebind: a folder.
    open_clip: a name such as ViT-L-14, or ``local-dir:FOLDER``. timm: a name such as vit_base_patch16_224."""
    weights: str | None = None
    """open_clip: a pretrained tag or a file; nothing with ``local-dir:`` and ``hf-hub:``, which bring
    them along. timm: ``hub`` (also for ``local-dir:`` and ``hf-hub:``) or a file. Without them the encoder is
    random. transformers and imagebind always take those of ``name_or_path``."""
    levels: list[int] = field(default_factory=lambda: [-1])
    """Blocks (or stages) whose outputs are taken, from 0; negative ones count from the last. The last one's
    tokens have passed the encoder's final norm. Several are joined by their width."""
    output: Literal["tokens", "global"] = "tokens"
    """All tokens of an image, or one global feature per level."""
    projection: bool = False
    """CLIP's projection on every token of the last level, as LLaMA-Adapter V2 has it."""
    channels: Literal["rgb", "bgr"] = "rgb"
    """Order of the colours. The published LLaMA-Adapter V2 models were trained on bgr."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the encoder's weights and outputs."""
    stored_dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """How a cache keeps the features."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise UserError("levels of the image encoder is []. Use [-1] for the last one.")
        if self.weights is not None and self.brings_weights:
            raise UserError(
                f"weights={self.weights!r} does not go with the kind {self.kind!r}. "
                "Set name_or_path to the folder that has them."
            )

    @property
    def brings_weights(self) -> bool:
        """Whether the weights are always those of ``name_or_path``."""
        return self.kind in ("transformers", "imagebind")
