"""The models of SPHINX's goldens: settings that the files do not say, weights under our names."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, MixtralConfig

from llama_adapter.checkpoints.meta_llama import dense_tensors
from sphinx_ft.config import SphinxConfig
from sphinx_ft.encoders.base import EncoderConfig, GridOutput
from sphinx_ft.mixing import MixedFeatures, aligned
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import LANGUAGE_MODEL, PREFIX, official_tensors
from sphinx_ft.placement import PlacementRule, place_images
from sphinx_ft.views import ViewConfig

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

LARGE = ("llama_ens", "llama_ens5", "llama_ens10", "llama_ens_peft")
LIGHT = ("llama_ens_light", "llama_ens5_light")
SPARSE = ("mixtral_sparse_ens5",)
GRIDS = {"llama_ens5": 2, "llama_ens10": 3, "llama_ens5_light": 2, "mixtral_sparse_ens5": 2}
CASES = (*LARGE, *LIGHT, *SPARSE)

SETTINGS = {
    "clip": {"width": 8, "layers": 2, "heads": 2, "output_width": 6},
    "convnext": {"depths": [1, 1, 2, 1], "widths": [4, 8, 12, 24]},
    "dinov2": {"width": 12, "layers": 2, "heads": 2},
    "qformer": {
        "width": 8,
        "layers": 2,
        "heads": 2,
        "inner_width": 16,
        "image_width": 12,
        "image_layers": 2,
        "image_heads": 2,
        "image_inner_width": 24,
    },
}
"""Sizes of the tiny encoders."""


def golden(case):
    """All tensors of a golden file."""
    return load_file(GOLDEN / f"sphinx_{case}.safetensors")


def view_config(case):
    """Square and grid of a case."""
    grid = GRIDS.get(case, 0)
    high = case in LIGHT + SPARSE
    side = (512 if high else 224) * max(grid, 1)
    return ViewConfig(image_size=side, rows=grid, columns=grid, half_resize=True)


def encoder_configs(case):
    """Encoders of a case, in the order of their channels."""
    convnext = {"view_size": 512} if case in LIGHT + SPARSE else {"input_size": 256, "alignment": "repeat"}
    kinds = ("convnext", "dinov2") if case in LIGHT else ("qformer", "clip", "convnext", "dinov2")
    own = {"convnext": convnext, "qformer": {"queries": 32}}
    return [EncoderConfig(kind=kind, settings=SETTINGS[kind], **own.get(kind, {})) for kind in kinds]


def from_official(stored, tensors):
    """Our weights out of official ones, by what ``official_tensors`` says."""
    ours = {}
    for tensor in stored:
        official = tensors[PREFIX + tensor.name]
        assert tuple(official.shape) == tensor.shape, tensor.name
        for index, name in enumerate(tensor.weights):
            ours[name] = tensor.layout.turn(tensor.layout.cut(official, index)).contiguous()
    return ours


def text_config(case, tensors):
    """The tiny language model's settings."""
    common = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}
    common |= {"rms_norm_eps": 1e-5, "max_position_embeddings": 3200, "pad_token_id": 0}
    if case in SPARSE:
        sizes = {"num_hidden_layers": 0, "intermediate_size": 32, "num_local_experts": 8, "head_dim": 4}
        return MixtralConfig(**common, **sizes, rope_parameters={"rope_theta": 1e6, "rope_type": "default"})
    biased = case == "llama_ens_peft"
    return LlamaConfig(
        **common,
        num_hidden_layers=2,
        intermediate_size=tensors["llma.layers.0.feed_forward.w1.weight"].shape[0],
        attention_bias=biased,
        mlp_bias=biased,
    )


def config_of(case, tensors, **options):
    """The whole model's settings."""
    return SphinxConfig(
        text_config=text_config(case, tensors),
        encoders=encoder_configs(case),
        views=view_config(case),
        **options,
    )


def golden_model(case, tensors, **options):
    """A model with the official weights, ready to run."""
    model = SphinxForConditionalGeneration(config_of(case, tensors, **options))
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    weights = from_official(official_tensors(shapes), tensors)
    text = from_official(dense_tensors(model.config.text_config), merged(tensors))
    weights |= {LANGUAGE_MODEL + name: weight for name, weight in text.items()}
    if case == "llama_ens_peft":
        weights |= biases(tensors, shapes)
    assert weights.keys() | {name for name in shapes if "skip" in name} == shapes.keys()
    model.load_state_dict(weights, strict="skip" not in str(shapes))
    return model.eval()


def merged(tensors):
    """Official weights with LoRA added to the maps it belongs to."""
    found = dict(tensors)
    for name in tensors:
        if name.endswith("lora_a.weight"):
            prefix = name.removesuffix("lora_a.weight")
            found[prefix + "weight"] = (
                tensors[prefix + "weight"] + tensors[prefix + "lora_b.weight"] @ tensors[name]
            )
    return found


def biases(tensors, shapes):
    """Biases of the language model under our names; zeros where the original has none."""
    stored = {
        f"{PREFIX}{one.name}": one
        for one in dense_tensors(
            LlamaConfig(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
        )
    }
    found = {
        name: torch.zeros(shapes[name])
        for name in shapes
        if name.startswith(LANGUAGE_MODEL) and name.endswith(".bias")
    }
    for name, one in stored.items():
        official = name.removesuffix("weight") + "bias"
        if official in tensors:
            (ours,) = one.weights
            found[LANGUAGE_MODEL + ours.removesuffix("weight") + "bias"] = one.layout.turn(tensors[official])
    return found


def golden_features(case, tensors):
    """The encoders' outputs in the golden, as the mix gives them: image by image."""
    views = view_config(case).count

    def ordered(name):
        values = tensors[name]
        return (
            values
            if case in LIGHT + SPARSE
            else values.unflatten(0, (views, 2)).transpose(0, 1).flatten(0, 1)
        )

    def patches(values):
        return values.mT.unflatten(2, (16, 16))

    grids = [aligned(GridOutput(None, ordered("mid/convnext.out")), 16, "repeat")]
    grids.append(aligned(GridOutput(ordered("mid/dinov2.cls"), patches(ordered("mid/dinov2.patch"))), 16))
    if case in LIGHT:
        return MixedFeatures(torch.cat(grids, dim=2))
    return MixedFeatures(
        torch.cat([ordered("mid/clip.out"), *grids], dim=2), {"qformer": ordered("mid/qformer.out")}
    )


def with_images(tokens, model, sizes):
    """Rows of text with the places of one image each behind BOS."""
    rule = PlacementRule(image_token_id=model.config.image_token_id, bos_token_id=int(tokens[0, 0]))
    lengths = model.config.image_lengths(sizes)
    return torch.tensor(
        [place_images(row, [length], rule) for row, length in zip(tokens.tolist(), lengths, strict=True)]
    )
