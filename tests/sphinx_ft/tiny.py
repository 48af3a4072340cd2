"""A SPHINX model small enough for a test: all four encoders, a 2x2 grid, views of 28 pixels."""

import torch
from PIL import Image
from transformers import LlamaConfig, MixtralConfig

from sphinx_ft.config import SphinxConfig
from sphinx_ft.encoders.base import EncoderConfig
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.tokens import TokenConfig
from sphinx_ft.views import ViewConfig

QFORMER = EncoderConfig(
    kind="qformer",
    queries=3,
    view_size=28,
    settings={
        "width": 8,
        "layers": 2,
        "heads": 2,
        "inner_width": 16,
        "image_width": 8,
        "image_layers": 1,
        "image_heads": 2,
        "image_inner_width": 16,
        "image_size": 28,
    },
)
CLIP = EncoderConfig(
    kind="clip",
    view_size=28,
    settings={"width": 8, "layers": 1, "heads": 2, "output_width": 6, "image_size": 28},
)
CONVNEXT = EncoderConfig(
    kind="convnext",
    view_size=28,
    input_size=32,
    alignment="repeat",
    settings={"depths": [1, 1, 1, 1], "widths": [4, 4, 8, 8]},
)
DINOV2 = EncoderConfig(
    kind="dinov2", view_size=28, settings={"width": 12, "layers": 1, "heads": 2, "image_size": 56}
)
MIX = (QFORMER, CLIP, CONVNEXT, DINOV2)

TEXT = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}


def tiny_config(encoders=MIX, views=None, tokens=None, mixtral=False, **options):
    """Settings; padding at one side and one shared token for skipped views unless told otherwise."""
    moe = {"num_local_experts": 4, "num_experts_per_tok": 2}
    text = MixtralConfig(**TEXT, **moe) if mixtral else LlamaConfig(**TEXT)
    return SphinxConfig(
        text_config=text,
        encoders=list(encoders),
        views=views or ViewConfig(image_size=56, rows=2, columns=2, padding="end"),
        tokens=tokens or TokenConfig(grid=2, skip="shared"),
        **options,
    )


def tiny_model(*arguments, seed=0, **options):
    """A random model, ready to run."""
    torch.manual_seed(seed)
    model = SphinxForConditionalGeneration(tiny_config(*arguments, **options))
    for name, weight in model.named_parameters():
        if weight.dim() < 2 or "query_tokens" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    return model.eval()


def picture(width, height, seed=0):
    """Noise in colours, of that size."""
    noise = torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.byte().numpy())
