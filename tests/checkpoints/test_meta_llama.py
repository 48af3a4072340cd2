"""Meta's folders become Hugging Face models with the same numbers, and back, tensor for tensor."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from llama_adapter.checkpoints.convert import ConvertConfig, convert
from llama_adapter.checkpoints.shards import split
from llama_adapter.cli import main
from llama_adapter.errors import UserError
from tests.adapters.official import GOLDEN
from tests.checkpoints.measure_memory import measure
from tests.checkpoints.published_keys import published_keys
from tests.tiny import tiny_llama


def meta_tensors(params, vocabulary, inner, tied=False, dtype=torch.float32):
    """Random weights of a LLaMA under Meta's names."""
    dim, keys = params["dim"], params["dim"] // params["n_heads"] * params["n_kv_heads"]
    shapes = {"tok_embeddings": (vocabulary, dim), "norm": (dim,), "output": (vocabulary, dim)}
    if tied:
        del shapes["output"]
    for layer in range(params["n_layers"]):
        maps = {"wq": (dim, dim), "wk": (keys, dim), "wv": (keys, dim), "wo": (dim, dim)}
        shapes |= {f"layers.{layer}.attention.{name}": shape for name, shape in maps.items()}
        maps = {"w1": (inner, dim), "w2": (dim, inner), "w3": (inner, dim)}
        shapes |= {f"layers.{layer}.feed_forward.{name}": shape for name, shape in maps.items()}
        shapes |= {f"layers.{layer}.{norm}": (dim,) for norm in ("attention_norm", "ffn_norm")}
    return {f"{name}.weight": torch.randn(shape).to(dtype) for name, shape in shapes.items()}


def write(folder, params, tensors, files=1, by_vocabulary=True, container="", accessory=False):
    """Write Meta's files, split as tensor-parallel code does; returns what each holds."""
    folder.mkdir()
    shares = [{} for _ in range(files)]
    for name, tensor in tensors.items():
        module = name.split(".")[-2]
        axis = {"wo": 1, "w2": 1, "tok_embeddings": int(not by_vocabulary)}.get(module, 0)
        axis = None if module.endswith("norm") else axis
        for share, piece in zip(shares, split(tensor, axis, files), strict=True):
            share[name] = piece
    shares[0]["rope.freqs"] = torch.randn(4)
    for index, share in enumerate(shares):
        name = (
            f"consolidated.{index:02d}-of-{files:02d}.model.pth"
            if accessory
            else f"consolidated.{index:02d}.pth"
        )
        share = {f"llma.{key}": tensor for key, tensor in share.items()} if accessory else share
        torch.save({container: share} if container else share, folder / name)
        shares[index] = share
    (folder / ("config.json" if accessory else "params.json")).write_text(json.dumps(params))
    return shares


PARAMS = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": 20}


def run(source, output, **options):
    return convert(ConvertConfig(kind="meta-llama", checkpoint=str(source), output=str(output), **options))


@settings(max_examples=15, deadline=None)
@given(
    groups=st.sampled_from([2, 4]),
    tied=st.booleans(),
    files=st.sampled_from([1, 2]),
    by_vocabulary=st.booleans(),
    container=st.sampled_from(["", "model"]),
    accessory=st.booleans(),
    inner=st.sampled_from([12, 20]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    limit=st.sampled_from([1e-6, 1.0]),
)
def test_there_and_back_is_the_identity(
    groups, tied, files, by_vocabulary, container, accessory, inner, dtype, limit
):
    params = PARAMS | {"n_kv_heads": groups}
    tensors = meta_tensors(params, 20, inner, tied, dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shares = write(folder / "meta", params, tensors, files, by_vocabulary, container, accessory)
        run(folder / "meta", folder / "hf", max_shard_gb=limit)
        run(folder / "hf", folder / "back", reverse=True)
        settings_file = "config.json" if accessory else "params.json"
        assert json.loads((folder / "back" / settings_file).read_text()) == params
        for path, share in zip(sorted((folder / "meta").glob("*.pth")), shares, strict=True):
            back = torch.load(folder / "back" / path.name, weights_only=True)
            back = back[container] if container else back
            assert back.keys() == share.keys()
            assert all(back[key].dtype == share[key].dtype for key in share)
            assert all(torch.equal(back[key], share[key]) for key in share)


def test_files_however_split_give_one_model(tmp_path):
    tensors = meta_tensors(PARAMS, 20, 12)
    tokens, logits = torch.tensor([[1, 5, 9, 3]]), []
    for files, by_vocabulary in ((1, True), (2, True), (2, False)):
        name = f"{files}-{by_vocabulary}"
        write(tmp_path / name, PARAMS, tensors, files, by_vocabulary)
        run(tmp_path / name, tmp_path / f"hf-{name}")
        logits.append(AutoModelForCausalLM.from_pretrained(tmp_path / f"hf-{name}")(tokens).logits)
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def test_query_and_key_rows_are_the_original_conversion_s(tmp_path, repository):
    from safetensors.torch import load_file

    from tests.checkpoints.golden_cases import write_meta_llama

    write_meta_llama("v1", tmp_path / "meta")
    run(tmp_path / "meta", tmp_path / "hf")
    ours, golden = (
        load_file(tmp_path / "hf" / "model.safetensors"),
        load_file(GOLDEN / "v1_hf_conversion.safetensors"),
    )
    wanted = {name: tensor for name, tensor in golden.items() if name.startswith("model.")}
    assert len(wanted) == 8
    assert all(torch.equal(ours[name], tensor) for name, tensor in wanted.items())


def test_a_real_model_tells_its_story(shared_data, tmp_path, capsys):
    source = shared_data / "models" / "stories260k-meta"
    paths = ["--checkpoint", str(source), "--output", str(tmp_path / "hf")]
    assert main(["convert", "--kind", "meta-llama", *paths]) == 0
    capsys.readouterr()
    asked = ["--base", str(tmp_path / "hf"), "--prompt", "", "--max-new-tokens", "200"]
    assert main(["generate", *asked]) == 0
    told = capsys.readouterr().out.strip()
    expected = (source / "expected_greedy_200.txt").read_text().strip()
    assert len(told) > 300
    assert told.startswith(expected) or expected.startswith(told)


def test_the_published_names_convert_with_nothing_left_over(tmp_path):
    reduced = {4096: 64, 11008: 96, 32000: 100}
    _, listed = published_keys("base_llama7b_consolidated")
    tensors = {key: torch.randn([reduced[size] for size in shape]) for key, shape in listed.items()}
    params = {"dim": 64, "n_layers": 32, "n_heads": 32, "norm_eps": 1e-6}
    write(tmp_path / "meta", params, tensors)
    run(tmp_path / "meta", tmp_path / "hf", dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype="auto")
    assert len(model.state_dict()) == len(listed)
    assert model.dtype == torch.bfloat16


def test_a_model_that_never_was_official_says_what_was_assumed(tmp_path, capsys):
    tiny_llama().save_pretrained(tmp_path / "hf")
    run(tmp_path / "hf", tmp_path / "meta", reverse=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "no sidecar file" in said
    assert '"n_kv_heads": 2' in said
    run(tmp_path / "meta", tmp_path / "again")
    first, second = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("hf", "again"))
    tokens = torch.tensor([[1, 5, 9]])
    assert torch.equal(first(tokens).logits, second(tokens).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layers.1.attention.wo.weight"), "layers.1.attention.wo.weight .* is missing"),
        (lambda t: t.update({"norm.weight": torch.zeros(3)}), r"norm.weight has shape \(3\), not \(16\)"),
        (
            lambda t: t.update({"layers.0.feed_forward.gate.weight": torch.zeros(3)}),
            "does not have: layers.*feed_forward.gate",
        ),
        (lambda t: t.pop("tok_embeddings.weight"), "lacks 'tok_embeddings.weight'"),
    ],
)
def test_wrong_files_are_refused_and_leave_nothing(tmp_path, change, message):
    tensors = meta_tensors(PARAMS, 20, 12)
    change(tensors)
    write(tmp_path / "meta", PARAMS, tensors)
    with pytest.raises(UserError, match=message):
        run(tmp_path / "meta", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


def test_files_of_different_models_are_refused(tmp_path):
    write(tmp_path / "meta", PARAMS, meta_tensors(PARAMS, 20, 12), files=2)
    torch.save({"other.weight": torch.zeros(2)}, tmp_path / "meta" / "consolidated.01.pth")
    with pytest.raises(UserError, match="Only some of 2 files hold a share of layers"):
        run(tmp_path / "meta", tmp_path / "hf")


def test_what_lies_beside_the_weights_is_named(tmp_path, capsys):
    write(tmp_path / "meta", PARAMS, meta_tensors(PARAMS, 20, 12), container="model")
    path = tmp_path / "meta" / "consolidated.00.pth"
    torch.save(torch.load(path, weights_only=True) | {"epoch": 3}, path)
    run(tmp_path / "meta", tmp_path / "hf")
    assert "ignored: not the model's weights" in (said := " ".join(capsys.readouterr().out.split()))
    assert "epoch" in said


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no Meta weights .*consolidated.00.pth"):
        run(tmp_path, tmp_path / "hf")


@pytest.mark.slow
def test_memory_stays_below_the_largest_file():
    found = measure(layers=12, files=2, max_shard_gb=1.0)
    assert found["largest file"] > 500
    assert found["resident share of the largest file"] < 1.3


@pytest.mark.slow
def test_the_way_back_holds_less_than_one_file():
    found = measure(layers=12, files=2, max_shard_gb=1.0, reverse=True)
    assert found["of it anonymous"] < 0.6 * found["largest file"]
