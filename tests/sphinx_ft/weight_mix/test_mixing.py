"""Mixtures of stored models: identities, what is refused, and how much memory it takes."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llama_adapter.cli import main
from llama_adapter.errors import UserError
from sphinx_ft import mix_models
from sphinx_ft.weight_mix.mixing import RECORD_FILE
from sphinx_ft.weight_mix.stored import stored_tensors

TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
}


def save_model(folder, seed, max_shard_size="5GB", dtype=torch.float32, **changes):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**TINY | changes)).to(dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    return model


@pytest.fixture
def models(tmp_path):
    """Two models, one of them in several files."""
    save_model(tmp_path / "a", 0, max_shard_size="4KB")
    save_model(tmp_path / "b", 1)
    return tmp_path / "a", tmp_path / "b"


def weights_of(folder):
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


@pytest.mark.parametrize(("beta", "same"), [(1.0, 0), (0.0, 1)])
def test_all_of_one_is_that_one_to_the_bit(models, tmp_path, beta, same):
    mix_models(models, (beta, 1 - beta), tmp_path / "c")
    found, wanted = weights_of(tmp_path / "c"), weights_of(models[same])
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_mean_of_two_and_its_files(models, tmp_path):
    assert main(["mix", *map(str, models), "--beta", "0.3", "--output", str(tmp_path / "c")]) == 0
    a, b, c = (weights_of(folder) for folder in (*models, tmp_path / "c"))
    for name, value in c.items():
        torch.testing.assert_close(value, 0.3 * a[name] + 0.7 * b[name])
    assert {path.name for path in (tmp_path / "c").iterdir()} == {p.name for p in models[0].iterdir()} | {
        RECORD_FILE
    }
    assert json.loads((tmp_path / "c" / RECORD_FILE).read_text())["weights"] == [0.3, 0.7]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    torch.testing.assert_close(loaded.lm_head.weight, c["lm_head.weight"])


def test_the_order_does_not_matter(models, tmp_path):
    mix_models(models, (0.25, 0.75), tmp_path / "c")
    mix_models(models[::-1], (0.75, 0.25), tmp_path / "d")
    one, other = weights_of(tmp_path / "c"), weights_of(tmp_path / "d")
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-7, rtol=0)


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6), min_size=2, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    data=st.data(),
)
def test_any_mean(tmp_path_factory, values, dtype, data):
    folder = tmp_path_factory.mktemp("mean")
    shares = data.draw(st.lists(st.integers(0, 9), min_size=len(values), max_size=len(values)).filter(any))
    weights = [share / sum(shares) for share in shares]
    tensors = [torch.tensor(one, dtype=dtype).view(2, 3) for one in values]
    for place, tensor in enumerate(tensors):
        (folder / str(place)).mkdir()
        save_file(
            {"a": tensor, "empty": torch.zeros(0, dtype=dtype)}, folder / str(place) / "model.safetensors"
        )
    mix_models([folder / str(place) for place in range(len(values))], weights, folder / "out")
    wanted = sum(weight * tensor.double() for weight, tensor in zip(weights, tensors, strict=True))
    found = load_file(folder / "out" / "model.safetensors")["a"]
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=torch.finfo(dtype).eps)


def test_infinities_of_a_model_without_weight_stay_out(models, tmp_path):
    broken = {
        name: torch.full_like(value, torch.inf)
        for name, value in load_file(models[1] / "model.safetensors").items()
    }
    save_file(broken, models[1] / "model.safetensors")
    mix_models(models, (1.0, 0.0), tmp_path / "c")
    assert all(value.isfinite().all() for value in weights_of(tmp_path / "c").values())


def test_the_language_model_alone(tmp_path):
    for place in range(2):
        folder = tmp_path / str(place)
        folder.mkdir()
        tensors = {
            "language_model.w": torch.full((3,), float(place)),
            "visual_proj.w": torch.full((2,), float(place)),
        }
        save_file(tensors, folder / "model.safetensors")
    done = mix_models([tmp_path / "0", tmp_path / "1"], (0.5, 0.5), tmp_path / "out", scope="llm")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert (done.mixed, done.kept) == (1, 1)
    assert found["language_model.w"].tolist() == [0.5] * 3
    assert found["visual_proj.w"].tolist() == [0.0] * 2


def test_stale_weights_of_other_formats_are_left_behind(models, tmp_path):
    (models[0] / "pytorch_model.bin").write_bytes(b"old")
    (models[0] / "checkpoint-3").mkdir()
    mix_models(models, (0.5, 0.5), tmp_path / "c")
    names = {path.name for path in (tmp_path / "c").iterdir()}
    assert not names & {"pytorch_model.bin", "checkpoint-3"}


def _renamed(folder):
    path = folder / "model.safetensors"
    save_file({name.replace("norm", "gain"): value for name, value in load_file(path).items()}, path)


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:40])


def _whole_numbers(folder):
    path = folder / "model.safetensors"
    save_file({name: value.to(torch.int32) for name, value in load_file(path).items()}, path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            _renamed,
            "'model.layers.0.input_layernorm.weight', 'model.layers.0.post_attention_layernorm.weight'",
        ),
        (_cut, "is damaged or no safetensors file"),
        (lambda folder: save_model(folder, 1, vocab_size=51), "vocab_size 50 and 51"),
        (
            lambda folder: save_model(folder, 1, rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
            "rope",
        ),
        (lambda folder: (folder / "config.json").unlink(), "config.json' is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no .safetensors files"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_models_that_do_not_fit(models, tmp_path, damage, said, capsys):
    damage(models[1])
    assert main(["mix", *map(str, models), "--output", str(tmp_path / "c")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_shapes_are_named(tmp_path):
    for place in range(2):
        (tmp_path / str(place)).mkdir()
        save_file({"w": torch.zeros(2 + place)}, tmp_path / str(place) / "model.safetensors")
    with pytest.raises(UserError, match=r"w \(2,\) and \(3,\)"):
        mix_models([tmp_path / "0", tmp_path / "1"], (0.5, 0.5), tmp_path / "out")


def test_tables_of_whole_numbers_must_agree(tmp_path):
    for place in range(2):
        (tmp_path / str(place)).mkdir()
        save_file({"w": torch.tensor([place])}, tmp_path / str(place) / "model.safetensors")
    with pytest.raises(UserError, match="whole numbers"):
        mix_models([tmp_path / "0", tmp_path / "1"], (0.5, 0.5), tmp_path / "out")
    assert mix_models([tmp_path / "0", tmp_path / "0"], (0.5, 0.5), tmp_path / "out").mixed == 1


def test_vocabularies_are_compared(models, tmp_path):
    for folder, letters in zip(models, ("ab", "ba"), strict=True):
        vocabulary = {letter: number for number, letter in enumerate(letters)}
        tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="a"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    with pytest.raises(UserError, match="differ in 2 tokens: 'a', 'b'"):
        mix_models(models, (0.5, 0.5), tmp_path / "c")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "[0.5,0.6]"], "add up to 1.1"),
        (["--weights", "[1.0]"], "2 models and 1 weights"),
        (["--beta", "0.5", "--weights", "[0.5,0.5]"], "Give one of the two"),
        (["--scope", "llm"], "language model by itself"),
        (["--evaluate", "choice"], "evaluate without betas"),
        (["--betas", "[0,1]"], "nothing to evaluate"),
    ],
)
def test_wishes_that_cannot_be_met(models, tmp_path, words, said, capsys):
    assert main(["mix", *map(str, models), "--output", str(tmp_path / "c"), *words]) == 2
    assert said in capsys.readouterr().err


def test_an_output_that_is_there_stays(models, tmp_path, capsys):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "note").write_text("mine")
    assert main(["mix", *map(str, models), "--output", str(tmp_path / "c")]) == 2
    assert (tmp_path / "c" / "note").read_text() == "mine"


def test_three_models(models, tmp_path):
    save_model(tmp_path / "d", 2)
    words = [*map(str, models), str(tmp_path / "d"), "--weights", "[0.5,0.25,0.25]"]
    assert main(["mix", *words, "--output", str(tmp_path / "c")]) == 0
    a, b, c, d = (weights_of(tmp_path / name) for name in "abcd")
    for name, value in c.items():
        torch.testing.assert_close(value, 0.5 * a[name] + 0.25 * b[name] + 0.25 * d[name])


def test_memory_is_that_of_two_tensors(tmp_path):
    """Sixteen tensors of 8 MB in each model; the process may grow by four of them."""
    for place in range(2):
        (tmp_path / str(place)).mkdir()
        tensors = {f"w{number}": torch.full((2, 1024, 1024), float(place)) for number in range(16)}
        save_file(tensors, tmp_path / str(place) / "model.safetensors")
    program = """
import resource, sys
from sphinx_ft import mix_models
from sphinx_ft.weight_mix.stored import stored_tensors
import pathlib
stored_tensors(pathlib.Path(sys.argv[1]))["w0"].read().mul_(2.0).add_(1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mix_models(sys.argv[1:3], (0.5, 0.5), sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    words = [str(tmp_path / name) for name in ("0", "1", "out")]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * 8 * 1024
    assert stored_tensors(tmp_path / "out")["w3"].read().unique().tolist() == [0.5]
