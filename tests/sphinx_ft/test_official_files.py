"""Released folders become models with the original's numbers, and come back tensor for tensor."""

import json

import pytest
import torch

from llama_adapter.checkpoints.convert import ConvertConfig, convert
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import PREFIX
from sphinx_ft.variants import VARIANTS
from tests.sphinx_ft.golden_cases import (
    CASES,
    config_of,
    golden,
    golden_features,
    with_images,
)
from tests.sphinx_ft.released import RELEASED, random_model, tiny_variant, write_released

SIZES = [(90, 60), (40, 100)]
PARAMS = ("dim", "n_layers", "n_heads", "n_kv_heads", "norm_eps", "vocab_size", "max_seq_len")


def run(source, output, **options):
    return convert(ConvertConfig(kind="sphinx", checkpoint=str(source), output=str(output), **options))


def held(folder):
    """What each file of a released folder holds."""
    files = sorted(folder.glob("*.pth"))
    return [torch.load(path, weights_only=True)["model"] for path in files]


def same(first, second):
    return all(
        one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
        for one, two in zip(first, second, strict=True)
    )


def golden_settings(case, tensors):
    """The settings files of a golden's model."""
    settings = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": 64}
    settings |= {"max_seq_len": 3200, "rope_theta": 10000, "rope_scaling": None}
    settings |= {"load_pretrained_visual_encoder": False}
    if case.startswith("mixtral"):
        moe = {"num_experts_per_tok": 2, "num_experts": 8}
        settings |= {"n_layers": 0, "hidden_dim": 32, "head_dim": 4, "rope_theta": 1e6, "moe": moe}
    return settings


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", [case for case in CASES if case != "llama_ens_peft"])
def test_goldens_keep_their_logits_through_files_and_come_back(case, count, tmp_path):
    tensors = golden(case)
    official = {
        name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)
    }
    settings = golden_settings(case, tensors)
    shares = write_released(tmp_path / "released", official, count, settings, case)
    config_of(case, tensors).save_pretrained(tmp_path / "sizes")
    run(tmp_path / "released", tmp_path / "ours", base=str(tmp_path / "sizes"))

    model = SphinxForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    ids = with_images(tensors["in/tokens"], model, SIZES)
    with torch.no_grad():
        logits = model(ids, features=golden_features(case, tensors)).logits
    kept = logits[:, model.config.image_lengths(SIZES)[0] :]
    torch.testing.assert_close(kept, tensors["out/logits"], atol=1e-4, rtol=0)

    run(tmp_path / "ours", tmp_path / "back", reverse=True)
    assert same(held(tmp_path / "back"), shares)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == settings
    assert json.loads((tmp_path / "back" / "meta.json").read_text()) == {"llama_type": case}


@pytest.mark.parametrize("name", RELEASED)
def test_models_trained_here_become_released_files_and_come_back(name, tmp_path):
    model = random_model(tiny_variant(name))
    model.save_pretrained(tmp_path / "ours")
    run(tmp_path / "ours", tmp_path / "released", reverse=True, official_shards=2)
    code = {"llama_type": VARIANTS[name].llama_type}
    assert json.loads((tmp_path / "released" / "meta.json").read_text()) == code
    run(tmp_path / "released", tmp_path / "back", base=str(tmp_path / "ours"))
    back = SphinxForConditionalGeneration.from_pretrained(tmp_path / "back")
    weights, wanted = back.state_dict(), model.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    run(tmp_path / "back", tmp_path / "again", reverse=True)
    assert same(held(tmp_path / "again"), held(tmp_path / "released"))
