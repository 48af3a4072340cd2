"""Mixtral's files, however experts are stored and shared, give the original's numbers, and come back."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llama_adapter.checkpoints.convert import ConvertConfig, convert
from llama_adapter.errors import UserError
from tests.adapters.official import GOLDEN

EXPERTS, INNER, LAYERS = 4, 24, 2
PARAMS = {
    "dim": 16,
    "hidden_dim": INNER,
    "head_dim": 4,
    "n_layers": LAYERS,
    "n_heads": 4,
    "n_kv_heads": 2,
    "vocab_size": 64,
    "norm_eps": 1e-05,
    "moe": {"num_experts_per_tok": 2, "num_experts": EXPERTS},
}
BY_INPUT = ("wo.weight", "w2.weight", "tok_embeddings.weight")


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "accessory_mixtral_base.safetensors")


@pytest.fixture
def tensors(golden):
    return {name.removeprefix("llma."): tensor for name, tensor in golden.items() if "llma." in name}


def stack(tensors, block, suffix):
    """Experts stacked in three tensors per layer, the second map transposed."""
    stacked = {
        name.replace("feed_forward", block): tensor
        for name, tensor in tensors.items()
        if ".experts." not in name
    }
    for layer in range(LAYERS):
        for name in ("w1", "w2", "w3"):
            maps = [tensors[f"layers.{layer}.feed_forward.experts.{e}.{name}.weight"] for e in range(EXPERTS)]
            rows = [matrix.T if name == "w2" else matrix for matrix in maps]
            stacked[f"layers.{layer}.{block}.{name}{suffix}"] = torch.cat(rows)
    return stacked


def halve(name, tensor, file):
    """One of two files' share, as Accessory's tensor parallelism has it; None for another file's expert."""
    if ".experts." in name:
        return tensor if int(name.split(".experts.")[1][0]) // (EXPERTS // 2) == file else None
    if "norm" in name or "gate" in name:
        return tensor
    if name.split(".")[-1] in {"w1", "w2", "w3"}:
        return tensor.view(EXPERTS, INNER, -1).chunk(2, dim=1)[file].flatten(0, 1).contiguous()
    return tensor.chunk(2, dim=1 if name.endswith(BY_INPUT) else 0)[file].contiguous()


def save(folder, shares, name="consolidated.{:02d}.pth", prefix="", container=""):
    folder.mkdir()
    for index, share in enumerate(shares):
        share = {prefix + key: tensor for key, tensor in share.items()}
        torch.save({container: share} if container else share, folder / name.format(index))
    (folder / "params.json").write_text(json.dumps(PARAMS))


def run(source, output, **options):
    return convert(ConvertConfig(kind="mixtral", checkpoint=str(source), output=str(output), **options))


def layouts(tensors):
    """Every way of storing the same model."""
    stacked = stack(tensors, "feed_forward", "")
    dealt = [dict(list(stacked.items())[index::3]) for index in range(3)]
    return {
        "modules": ([tensors], {}),
        "modules in two files": (
            [
                {name: part for name, t in tensors.items() if (part := halve(name, t, file)) is not None}
                for file in range(2)
            ],
            {"name": "consolidated.{:02d}-of-02.model.pth", "prefix": "llma.", "container": "model"},
        ),
        "stacked": ([stack(tensors, "block_sparse_moe", "")], {"name": "consolidated.{:02d}.pt"}),
        "stacked in two files": (
            [{name: halve(name, t, file) for name, t in stacked.items()} for file in range(2)],
            {"prefix": "llma.", "container": "model"},
        ),
        "stacked, dealt out": (dealt, {}),
    }


@pytest.mark.parametrize(
    "layout", ["modules", "modules in two files", "stacked", "stacked in two files", "stacked, dealt out"]
)
def test_every_layout_gives_the_original_s_logits_and_comes_back(golden, tensors, layout, tmp_path):
    shares, options = layouts(tensors)[layout]
    save(tmp_path / "official", shares, **options)
    run(tmp_path / "official", tmp_path / "hf")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    logits = model(golden["in/tokens"]).logits
    torch.testing.assert_close(logits, golden["out/logits"], rtol=0, atol=5e-5)

    run(tmp_path / "hf", tmp_path / "back", reverse=True)
    names = sorted(path.name for path in (tmp_path / "official").iterdir())
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == names
    for name in (name for name in names if name.startswith("consolidated")):
        first, second = (
            torch.load(tmp_path / folder / name, weights_only=True) for folder in ("official", "back")
        )
        first, second = (
            content[options["container"]] if "container" in options else content
            for content in (first, second)
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_model_saved_by_transformers_becomes_official(golden, tensors, tmp_path):
    save(tmp_path / "official", [tensors])
    run(tmp_path / "official", tmp_path / "hf")
    AutoModelForCausalLM.from_pretrained(tmp_path / "hf").save_pretrained(tmp_path / "saved")
    run(tmp_path / "saved", tmp_path / "back", reverse=True)
    back = torch.load(tmp_path / "back" / "consolidated.00.pth", weights_only=True)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_missing_expert_is_refused_and_leaves_nothing(tensors, tmp_path):
    del tensors["layers.1.feed_forward.experts.3.w2.weight"]
    save(tmp_path / "official", [tensors])
    with pytest.raises(UserError, match=r"experts\.3\.w2\.weight \(16, 24\) is missing; nearest"):
        run(tmp_path / "official", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["official"]


def test_a_share_that_one_file_lacks_is_refused(tensors, tmp_path):
    shares, options = layouts(tensors)["modules in two files"]
    del shares[1]["layers.0.attention.wq.weight"]
    save(tmp_path / "official", shares, **options)
    with pytest.raises(UserError, match="Only some of 2 files hold a share of layers.*wq"):
        run(tmp_path / "official", tmp_path / "hf")


def test_a_dense_model_is_no_mixtral(tensors, tmp_path):
    save(tmp_path / "official", [tensors])
    (tmp_path / "official" / "params.json").write_text(
        json.dumps({name: value for name, value in PARAMS.items() if name != "moe"})
    )
    with pytest.raises(UserError, match=r"lack \['moe'\]"):
        run(tmp_path / "official", tmp_path / "hf")
