"""ImageBind-LLM whole: trained in two stages on images, asked about every modality, alone and in batches."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from imagebind_llm import ImageBindLlm, ImageBindLlmProcessor
from llama_adapter import UserError
from llama_adapter.arguments import parse
from llama_adapter.cli import main
from llama_adapter.training import TrainConfig, build_trainer


def parts(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    return tensors, load_file(folder / "conditioner.safetensors")


def test_the_stages_train_what_they_should(trained):
    before, bind = parts(trained / "first" / "adapter")
    after, same = parts(trained / "second" / "adapter")
    assert all(tensor.abs().sum() > 0 for name, tensor in before.items() if "gate" in name)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())  # prompts and gates rest
    assert all(torch.equal(same[name], tensor) for name, tensor in bind.items())
    for part in ("zero_init_bias", "lora.up", "zero_init_norm"):
        moved = [tensor for name, tensor in after.items() if part in name]
        assert moved, part
        assert any(tensor.abs().sum() > 0 for tensor in moved)


def test_the_first_stage_learns_the_bind_network(trained):
    log = [json.loads(line) for line in (trained / "first" / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in log if "loss" in record]
    assert losses[-1] < losses[0]


@pytest.fixture(scope="module")
def processor(trained):
    return ImageBindLlmProcessor.from_pretrained(trained / "second" / "adapter")


@pytest.fixture
def settings(model):
    """The model, whose settings are put back."""
    yield model
    model.cache, model.mixing = None, "published"


def test_a_batch_is_its_rows_alone(model, rows, processor):
    together = model(**processor(rows, ["Say it."] * len(rows))).logits
    assert len({tuple(row[-1, :4].tolist()) for row in together}) == len(rows)
    for number, row in enumerate(rows):
        alone = model(**processor([row], ["Say it."])).logits
        torch.testing.assert_close(together[number, None], alone, atol=2e-5, rtol=0)


def test_answers_of_a_batch_are_those_of_its_rows(model, rows, processor):
    options = {"max_new_tokens": 5, "do_sample": False}
    together = model.generate(**processor(rows, ["Say.", "Say more.", "Say.", "No."]), **options)
    for number, (row, text) in enumerate(zip(rows, ["Say.", "Say more.", "Say.", "No."], strict=True)):
        alone = model.generate(**processor([row], [text]), **options)
        new = alone[0, len(processor([row], [text])["input_ids"][0]) :].tolist()  # may end early
        assert together[number, -5:].tolist()[: len(new)] == new


def test_embeddings_stand_for_inputs(model, rows, processor):
    batch = processor(rows, ["Say it."] * len(rows))
    wanted = model(**batch).logits
    del batch["mixes"]
    embeddings, present = model.embed(rows)
    assert present.tolist() == [True, True, False, True]
    found = model(**batch, embeddings=embeddings, has_embedding=present).logits
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    _, nothing = model.embed([None, None])
    assert nothing.tolist() == [False, False]


def test_a_cache_changes_embeddings_before_the_bind_network(settings, rows, processor):
    class Doubled:
        def blend(self, embeddings):
            return -2 * embeddings

    plain, present = settings.embed(rows)
    batch = processor(rows, ["Say it."] * len(rows))
    settings.cache = Doubled()
    cached, _ = settings.embed(rows)
    torch.testing.assert_close(cached[present], -2 * plain[present])
    through = settings(**batch).logits
    settings.cache = None
    del batch["mixes"]
    given = settings(**batch, embeddings=-2 * plain, has_embedding=present).logits
    torch.testing.assert_close(through, given, atol=1e-6, rtol=0)


def test_rules_of_mixing(settings, rows):
    published, present = settings.embed(rows)
    settings.mixing = "unit"
    unit, _ = settings.embed(rows)
    torch.testing.assert_close(unit[present].norm(dim=-1), torch.ones(3))
    directions = torch.nn.functional.normalize(published[present], dim=-1)
    torch.testing.assert_close(unit[present], directions, atol=1e-6, rtol=0)


def test_pixels_and_inputs_share_the_image_tower(trained, model, rows):
    whole = ImageBindLlm.from_pretrained(trained / "second" / "adapter", encoder="saved")
    wanted, _ = model.embed(rows[:1])
    found, _ = whole.embed(rows[:1])
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    (_, picture) = rows[0][0]
    ids = torch.tensor([[5, 6, 7]])
    pixels = whole(ids, pixel_values=whole.encoder.pixels([picture])).logits
    torch.testing.assert_close(pixels, model(ids, embeddings=wanted).logits, atol=1e-5, rtol=0)
    assert whole._senses._tower("vision") is whole.encoder.tower.model


def test_a_saved_folder_gives_the_same_logits(model, rows, processor, tmp_path):
    batch = processor(rows, ["Say it."] * len(rows))
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*tower*"))
    again = ImageBindLlm.from_pretrained(tmp_path)
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits, atol=0, rtol=0)
    names = [name for path in tmp_path.glob("*.safetensors") for name in load_file(path)]
    assert names
    assert not any("embed_tokens" in name or "towers" in name for name in names)


def test_what_cannot_be_mixed_is_said(model, rows):
    (_, picture), *_ = rows[0]
    with pytest.raises(UserError, match="Unknown modality 'smell'"):
        model.embed([[("smell", picture)]])
    with pytest.raises(UserError, match="add up to 0"):
        model.embed([[("image", picture, 1.0), ("text", "a", -1.0)]])


@pytest.mark.parametrize(
    "form", ["kind: bind", "class_path: imagebind_llm.BindConfig, init_args: {inner_width: 8}"]
)
def test_settings_name_the_network(form, trained, tiny_base):
    text = f"""
base: {{name_or_path: {tiny_base}}}
adapter: {{prompt_length: 1}}
vision: {{kind: imagebind, name_or_path: {trained / "imagebind"}}}
conditioner: {{{form}}}
data: {{train: [{{path: {trained / "items.json"}}}], template: alpaca}}
training: {{output_dir: {trained / "parsed"}, use_cpu: true, disable_tqdm: true}}
"""
    (trained / "run.yaml").write_text(text)
    made = build_trainer(parse(TrainConfig, [str(trained / "run.yaml")], "train"))
    network = made.unwrapped.conditioner
    assert network.config.kind == "bind"
    assert network.config.inner_width == (8 if "class_path" in form else 16384)


def ask(trained, capsys, *words):
    code = main(
        ["generate", "--adapter", str(trained / "second" / "adapter"), "--max-new-tokens", "6", *words]
    )
    return code, capsys.readouterr()


def test_the_command_line_mixes(trained, rows, capsys, tmp_path):
    picture = rows[0][0][1]
    sound = str(trained / "tone.wav")
    mixed = ["--image", f"{picture}:0.7", "--audio", f"{sound}:0.3", "--prompt", "Say"]
    code, streams = ask(trained, capsys, *mixed)
    assert code == 0
    assert ask(trained, capsys, "--audio", sound, "--prompt", "Say")[0] == 0
    record = {"prompt": "Say", "image": f"{picture}:0.7", "inputs": {"audio": f"{sound}:0.3"}}
    file, output = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    file.write_text(json.dumps(record))
    assert ask(trained, capsys, "--prompt-file", str(file), "--output", str(output))[0] == 0
    row = json.loads(output.read_text())
    assert row["answer"].strip() == streams.out.strip()
    assert row["image"] == f"image {picture!r} x 0.7 + audio {sound!r} x 0.3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--audio", "none.wav"], "The audio 'none.wav' does not exist"),
        (["--image", "PICTURE:1", "--text", "a:-1"], "add up to 0"),
        (["--audio", "PICTURE"], "PICTURE"),
    ],
)
def test_inputs_that_cannot_be_used_are_said(trained, rows, capsys, words, said):
    picture = rows[0][0][1]
    code, streams = ask(
        trained, capsys, *(word.replace("PICTURE", picture) for word in words), "--prompt", "Say"
    )
    assert code == 2
    assert said.replace("PICTURE", picture) in streams.err.replace("\n", " ")


def test_a_folder_is_enough_without_importing_the_package(trained):
    code = (
        "from llama_adapter.conditioning import load_conditioner; import sys;"
        f"print(load_conditioner({str(trained / 'first' / 'adapter')!r}).config.kind)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "bind"
