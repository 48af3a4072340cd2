"""A folder with a tiny adapter that sees, and its base and encoder beside it."""

import torch

from llama_adapter import ZeroInitConfig
from llama_adapter.conditioning import make_conditioner
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base, write_notes
from llama_adapter.multimodal import ImageConditionedModel
from llama_adapter.vision import load_encoder
from tests.tiny import CHAT_TEMPLATE, byte_tokenizer, tiny_llama
from tests.vision.tiny_encoders import config_of

TEMPLATE = "alpaca"


def make_folder(root, seed=0):
    """Writes everything below ``root`` and returns the adapter's folder; its gates are open."""
    base, folder = root / "base", root / f"adapter{seed}"
    if not base.exists():
        tiny_llama(max_position_embeddings=2048).save_pretrained(base)
        byte_tokenizer(CHAT_TEMPLATE).save_pretrained(base)
    torch.manual_seed(seed)
    adapted = attach_adapter(
        load_base(BaseModelConfig(name_or_path=str(base))), ZeroInitConfig(prompt_length=3)
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "zero_init" in name and "gate" in name:
                parameter.fill_(2.0)
    encoder = load_encoder(config_of("clip", root, projection=True))
    sizes = {"num_queries": 3, "width": 8, "depth": 1, "num_heads": 2, "mlp_width": 16}
    conditioner = make_conditioner(
        {"kind": "visual_queries", "hidden_size": 32, "feature_width": 12, **sizes}
    )
    with torch.no_grad():
        conditioner.visual_proj.weight.mul_(20)
    ImageConditionedModel(adapted, conditioner, encoder).save_pretrained(folder)
    write_notes(folder, AdapterNotes(template=TEMPLATE, base=str(base)))
    return folder
