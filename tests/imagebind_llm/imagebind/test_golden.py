"""Every tower against what the original code computed."""

import pytest
import torch

from imagebind_llm.imagebind.model import ImageBindModel
from imagebind_llm.imagebind.official_names import official_tensors
from tests.imagebind_llm.tiny import FILES, golden, official_weights, tiny_config, values

CASES = [
    ("vision", "vision_image"),
    ("vision", "vision_video"),
    ("vision", "vision_280"),
    ("audio", "audio_clips"),
    ("audio", "audio_single"),
    ("depth", "depth"),
    ("thermal", "thermal"),
    ("imu", "imu"),
    ("text", "text"),
    ("text", "text_no_eot"),
]


def golden_model(*modalities):
    """The original's weights in our model."""
    model = ImageBindModel(tiny_config(*modalities)).eval()
    official = official_weights(*modalities)
    names = official_tensors(model.state_dict())
    model.load_state_dict({ours: theirs.to_ours(official[theirs.name]) for ours, theirs in names.items()})
    return model


@pytest.mark.parametrize(("modality", "case"), CASES)
def test_embeddings_are_the_originals(modality, case):
    tensors = golden(FILES[modality])
    model = golden_model(modality)
    key = f"in/{case}_ids" if modality == "text" else f"in/{case}"
    with torch.no_grad():
        found = model({modality: values(tensors[key])})
    scale = 1 if modality == "vision" else model.tower(modality).log_scale.exp()
    difference = found.embeddings[modality] - tensors[f"out/{case}.embedding"]
    assert (difference / scale).abs().max() < 1e-6
    torch.testing.assert_close(found.features[modality], tensors[f"out/{case}.prenorm"], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("modality", "case"), [(m, c) for m, c in CASES if c not in ("vision_280", "text_no_eot")]
)
def test_tokens_before_and_behind_the_blocks(modality, case):
    tensors = golden(FILES[modality])
    tower = golden_model(modality).towers[modality]
    given = values(tensors[f"in/{case}_ids" if modality == "text" else f"in/{case}"])
    one = given[0, :1] if case in ("vision_video", "audio_clips") else given[:1]
    with torch.no_grad():
        tokens = tower.stem(one)
        torch.testing.assert_close(tokens, tensors[f"mid/{case}.tokens"], atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(
            tower.transformer(tokens), tensors[f"mid/{case}.trunk"], atol=1e-4, rtol=1e-4
        )
