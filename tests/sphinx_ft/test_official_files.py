"""Released folders become models with the original's numbers, and come back tensor for tensor."""

import json
import shutil
import weakref

import pytest
import torch
from safetensors import safe_open

from llama_adapter.checkpoints.convert import ConvertConfig, convert
from llama_adapter.checkpoints.model_export import Weights
from llama_adapter.checkpoints.model_files import OfficialModel
from llama_adapter.cli import main
from llama_adapter.errors import UserError
from sphinx_ft.model import SphinxForConditionalGeneration
from sphinx_ft.official_names import PREFIX
from sphinx_ft.processor import SphinxProcessor
from tests.sphinx_ft.golden_cases import config_of, golden, golden_features, with_images
from tests.sphinx_ft.released import GOLDEN_CASES, golden_settings, random_model, tiny_variant, write_released
from tests.sphinx_ft.tiny import picture
from tests.tiny import byte_tokenizer

SIZES = [(90, 60), (40, 100)]


def run(source, output, **options):
    return convert(ConvertConfig(kind="sphinx", checkpoint=str(source), output=str(output), **options))


def held(folder):
    """What each file of a released folder holds."""
    return [torch.load(path, weights_only=True)["model"] for path in sorted(folder.glob("*.pth"))]


def same(first, second):
    return all(
        one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
        for one, two in zip(first, second, strict=True)
    )


def official_of(tensors):
    """A golden's weights by their official names."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}


@pytest.mark.parametrize(("case", "count"), GOLDEN_CASES)
def test_goldens_keep_their_logits_through_files_and_come_back(case, count, tmp_path):
    tensors = golden(case)
    settings = golden_settings(case)
    shares = write_released(tmp_path / "released", official_of(tensors), count, settings, case)
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


@pytest.mark.parametrize(
    ("name", "family", "code"),
    [
        ("sphinx", "llama-2", "llama_ens"),
        ("sphinx-tiny-1k", "tinyllama", "llama_ens5_light"),
        ("sphinx-tiny", "internlm2", "llama_ens_light"),
        ("sphinx-moe", "mixtral", "mixtral_sparse_ens"),
    ],
)
def test_models_trained_here_become_released_files_and_come_back(name, family, code, tmp_path):
    model = random_model(tiny_variant(name, family))
    model.save_pretrained(tmp_path / "ours")
    run(tmp_path / "ours", tmp_path / "released", reverse=True, official_shards=2)
    released = tmp_path / "released"
    assert sorted(path.name for path in released.iterdir()) == [
        "config.json",
        "consolidated.00-of-02.model.pth",
        "consolidated.01-of-02.model.pth",
        "meta.json",
    ]
    assert json.loads((released / "meta.json").read_text()) == {"llama_type": code}
    run(released, tmp_path / "back", base=str(tmp_path / "ours"))
    back = SphinxForConditionalGeneration.from_pretrained(tmp_path / "back")
    assert same([back.state_dict()], [model.state_dict()])
    text, wanted = back.config.text_config, model.config.text_config
    for setting in ("rope_parameters", "max_position_embeddings", "rms_norm_eps", "vocab_size"):
        assert getattr(text, setting) == getattr(wanted, setting), setting

    run(tmp_path / "back", tmp_path / "again", reverse=True)
    assert same(held(tmp_path / "again"), held(released))
    back.save_pretrained(tmp_path / "saved")
    run(tmp_path / "saved", tmp_path / "one", reverse=True)
    run(tmp_path / "back", tmp_path / "resharded", reverse=True, official_shards=1)
    assert same(held(tmp_path / "one"), held(tmp_path / "resharded"))


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A released folder of a tiny SPHINX-Tiny in two files, its settings, and our folder of it."""
    folder = tmp_path_factory.mktemp("light")
    random_model(tiny_variant("sphinx-tiny")).save_pretrained(folder / "sizes")
    run(folder / "sizes", folder / "released", reverse=True, official_shards=2)
    run(folder / "released", folder / "ours", base=str(folder / "sizes"))
    return folder


def copy(light, target):
    """A released folder to be spoiled."""
    shutil.copytree(light / "released", target)
    return target


def spoil(folder, change):
    """Change what each of a folder's files holds."""
    for path in folder.glob("*.pth"):
        content = torch.load(path, weights_only=True)
        change(content["model"])
        torch.save(content, path)


def counting(patch, owner, name, alive):
    """Have what a method makes counted for as long as it lives, in bytes; ``alive`` is [now, most]."""
    made = getattr(owner, name)

    def counted(*arguments):
        tensor = made(*arguments)
        alive[0] += tensor.nbytes
        alive[1] = max(alive)
        weakref.finalize(tensor, lambda size: alive.__setitem__(0, alive[0] - size), tensor.nbytes)
        return tensor

    patch.setattr(owner, name, counted)


def test_memory_is_bounded_by_an_output_file_and_by_an_official_tensor(light, tmp_path, monkeypatch):
    with safe_open(light / "ours" / "model.safetensors", "pt") as file:
        sizes = {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118 - no mapping
    largest, whole = max(sizes.values()), sum(sizes.values())
    assert whole > 2.5 * largest
    alive = [0, 0]
    counting(monkeypatch, OfficialModel, "weight", alive)
    run(light / "released", tmp_path / "ours", base=str(light / "sizes"), max_shard_gb=largest / 1e9)
    assert alive[1] == largest
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 2

    alive[1] = 0
    monkeypatch.setattr("llama_adapter.checkpoints.spill._SMALL", 1)
    counting(monkeypatch, Weights, "__getitem__", alive)
    run(light / "ours", tmp_path / "back", reverse=True)
    assert alive[1] == largest
    assert same(held(tmp_path / "back"), held(light / "released"))


def test_the_command_line_goes_there_and_back(light, tmp_path, capsys):
    released = copy(light, tmp_path / "released")
    byte_tokenizer().save_pretrained(released)
    words = ["convert", "--kind", "sphinx", "--checkpoint", str(released), "--base", str(light / "sizes")]
    assert main([*words, "--variant", "sphinx-tiny", "--output", str(tmp_path / "ours")]) == 0
    said = capsys.readouterr().out
    assert "2 file(s); 2 layers" in said
    assert "SphinxForConditionalGeneration.from_pretrained" in said

    processor = SphinxProcessor.from_pretrained(tmp_path / "ours")
    assert processor.template == "sphinx"
    model = SphinxForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    asked = [{"role": "user", "content": [{"type": "image", "image": picture(30, 20)}]}]
    inputs = processor.apply_chat_template(asked, tokenize=True)
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 259

    words = ["convert", "--kind", "sphinx", "--checkpoint", str(tmp_path / "ours"), "--reverse", "true"]
    assert main([*words, "--official_shards", "1", "--output", str(tmp_path / "back")]) == 0
    assert [path.name for path in (tmp_path / "back").glob("*.pth")] == ["consolidated.00-of-01.model.pth"]


def test_what_released_code_keeps_but_never_uses_is_set_aside_and_comes_back(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    model = random_model(tiny_variant("sphinx"))
    model.save_pretrained(tmp_path / "sizes")
    run(tmp_path / "sizes", tmp_path / "released", reverse=True)
    unused = {
        "rope.freqs": torch.randn(2),
        "clip.ln_final.bias": torch.randn(3),
        "clip.logit_scale": torch.tensor(1.0),
        "clip.token_embedding.weight": torch.randn(4, 2),
    }
    more = {PREFIX + name: tensor for name, tensor in unused.items()}
    spoil(tmp_path / "released", lambda tensors: tensors.update(more))
    capsys.readouterr()
    run(tmp_path / "released", tmp_path / "ours", base=str(tmp_path / "sizes"))
    said = capsys.readouterr().out
    assert "kept aside: CLIP's text part, which nothing uses" in said
    assert "kept aside: transformers computes them itself" in said
    run(tmp_path / "ours", tmp_path / "back", reverse=True)
    assert same(held(tmp_path / "back"), held(tmp_path / "released"))


def lose(tensors):
    del tensors["llma.visual_proj.0.bias"]


def grow(tensors):
    tensors["llma.visual_proj.0.bias"] = torch.zeros(17)


def add(tensors):
    tensors["llma.layers.0.attention.wq.lora_a.weight"] = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose, r"visual_proj\.0\.bias \(16\) is missing; nearest: visual_proj"),
        (grow, r"visual_proj\.0\.bias has shape \(17\), not \(16\)"),
        (add, r"holds 1 tensors that such a model does not have: layers\.\*\.attention\.wq\.lora_a"),
    ],
)
def test_refuses_tensors_that_are_missing_misshapen_or_unknown(change, message, light, tmp_path):
    released = copy(light, tmp_path / "released")
    spoil(released, change)
    with pytest.raises(UserError, match=message):
        run(released, tmp_path / "ours", base=str(light / "sizes"))
    assert not (tmp_path / "ours").exists()


def test_refuses_a_part_of_the_files(light, tmp_path):
    released = copy(light, tmp_path / "released")
    (released / "consolidated.01-of-02.model.pth").unlink()
    with pytest.raises(UserError, match="1 files with weights.*Put all files of one model"):
        run(released, tmp_path / "ours", base=str(light / "sizes"))


def test_refuses_encoders_whose_weights_are_elsewhere(light, tmp_path):
    model = SphinxForConditionalGeneration.from_pretrained(light / "ours")
    model.name_encoders(tmp_path / "encoders")
    model.save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match=r"encoders \['convnext', 'dinov2'\] are not in the model's folder"):
        run(tmp_path / "ours", tmp_path / "released", reverse=True)


def test_refuses_a_model_of_another_kind(light, tmp_path):
    with pytest.raises(UserError, match="of type 'sphinx'. Use one of type 'llama'"):
        convert(
            ConvertConfig(
                kind="meta-llama", checkpoint=str(light / "ours"), output=str(tmp_path / "x"), reverse=True
            )
        )
