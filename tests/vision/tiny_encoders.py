"""Tiny random encoders of every library, as files where the library reads files."""

import json
import math

import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llama_adapter.vision import VisionConfig

SIZE = 16
SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "vocab_size": 10,
}
OPEN_CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": SIZE, "patch_size": 8, "width": 24, "layers": 3, "head_width": 12},
    "text_cfg": {"context_length": 4, "vocab_size": 10, "width": 8, "heads": 1, "layers": 1},
}
TIMM = ["test_vit", "test_vit3", "test_efficientnet", "test_convnext", "test_resnet", "test_mambaout"]
NAMES = ["clip", "siglip", "dinov2", "dinov2_with_registers", "open_clip", "open_clip_timm", *TIMM]


def transformers_model(name):
    """With an embedding of the class token that is not zero, as trained ones have it."""
    if name == "clip":
        return CLIPModel(CLIPConfig(text_config=TEXT, vision_config=SHAPE, projection_dim=12))
    if name == "siglip":
        return SiglipVisionModel(SiglipVisionConfig(**SHAPE))
    if name == "dinov2":
        return Dinov2Model(Dinov2Config(**SHAPE))
    return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SHAPE))


def save_processor(folder, size=SIZE):
    CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=size).save_pretrained(folder)


def open_clip_folder(folder, model_config, tensors=None):
    """What ``local-dir:`` reads; random weights unless ``tensors`` has those of the visual part."""
    import open_clip

    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_config, "preprocess_cfg": {}})
    )
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    if tensors:
        model.visual.load_state_dict(tensors)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return f"local-dir:{folder}"


def config_of(name, root, **options):
    """The config of an encoder, whose files are written below ``root`` if they are not there."""
    folder = root / name
    if name in TIMM:
        weights = root / f"{name}.pth"
        if not weights.exists():
            import timm

            torch.manual_seed(math.prod(map(ord, name)) % 1000)
            torch.save(timm.create_model(name).state_dict(), weights)
        return VisionConfig(kind="timm", name_or_path=name, weights=str(weights), **options)
    if name.startswith("open_clip"):
        own = dict(OPEN_CLIP)
        if name == "open_clip_timm":
            own["vision_cfg"] = {"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160}
        if not folder.exists():
            torch.manual_seed(0)
            open_clip_folder(folder, own)
        return VisionConfig(kind="open_clip", name_or_path=f"local-dir:{folder}", **options)
    if not folder.exists():
        torch.manual_seed(0)
        transformers_model(name).save_pretrained(folder)
        save_processor(folder)
    return VisionConfig(kind="transformers", name_or_path=str(folder), **options)


def draw(folder, count, size=(40, 32)):
    """Pictures of noise, lossless."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    paths = []
    for number in range(count):
        noise = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(noise.numpy()).save(paths[-1])
    return paths
