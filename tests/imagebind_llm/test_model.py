"""ImageBind-LLM whole: trained in two stages on images, asked about every modality, alone and in batches."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from imagebind_llm import ImageBindLlm
from llama_adapter import UserError
from llama_adapter.arguments import parse
from llama_adapter.cli import main
from llama_adapter.multimodal import ImageConditionedProcessor
from llama_adapter.training import TrainConfig, build_trainer, train
from tests.imagebind_llm.bind_runs import FIRST, SECOND, make_imagebind, stage, write_points, write_sound


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_base):
    """The folder of a run, with both adapters, a sound and a cloud of points."""
    root = tmp_path_factory.mktemp("bind")
    imagebind = make_imagebind(root / "imagebind")
    assert train(stage(root, tiny_base, imagebind, FIRST)) == 0
    first = str(root / "first" / "adapter")
    assert train(stage(root, tiny_base, imagebind, SECOND, first)) == 0
    write_sound(root / "tone.wav")
    write_points(root / "cloud.npy")
    return root


@pytest.fixture(scope="module")
def model(trained):
    return ImageBindLlm.from_pretrained(trained / "second" / "adapter", encoder=None)


@pytest.fixture(scope="module")
def rows(trained):
    """Rows of one batch: one input, a mix, a negative weight, none."""
    picture = str(sorted((trained / "pictures").iterdir())[0])
    sound, cloud = str(trained / "tone.wav"), str(trained / "cloud.npy")
    return [
        [("image", picture)],
        [("image", picture, 0.7), ("audio", sound, 0.3)],
        None,
        [("image", picture, 1.5), ("text", "a dog", -0.5), ("point", cloud, 0.25)],
    ]


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


def test_a_batch_is_its_rows_alone(model, rows, trained):
    processor = ImageConditionedProcessor.from_pretrained(trained / "second" / "adapter")
    batch = processor(text=["Say it."] * len(rows))
    embeddings, present = model.embed(rows)
    assert present.tolist() == [True, True, False, True]
    together = model(**batch, embeddings=embeddings, has_embedding=present).logits
    assert len({tuple(row[-1, :4].tolist()) for row in together}) == len(rows)
    for number, row in enumerate(rows):
        one = processor(text=["Say it."])
        vector, there = model.embed([row])
        alone = model(**one, embeddings=vector, has_embedding=there).logits
        torch.testing.assert_close(together[number, None], alone, atol=2e-5, rtol=0)


def test_answers_of_a_batch_are_those_of_its_rows(model, rows, trained):
    processor = ImageConditionedProcessor.from_pretrained(trained / "second" / "adapter")
    options = {"max_new_tokens": 5, "do_sample": False}
    vectors, present = model.embed(rows)
    together = model.generate(
        **processor(text=["Say."] * 4), embeddings=vectors, has_embedding=present, **options
    )
    for number, row in enumerate(rows):
        vector, there = model.embed([row])
        alone = model.generate(**processor(text=["Say."]), embeddings=vector, has_embedding=there, **options)
        assert together[number, : alone.shape[1]].tolist() == alone[0].tolist()


def test_a_cache_changes_embeddings_before_the_bind_network(model, rows):
    plain, _ = model.embed(rows)
    try:
        model.cache = lambda embeddings: -2 * embeddings
        cached, present = model.embed(rows)
    finally:
        model.cache = None
    torch.testing.assert_close(cached[present], -2 * plain[present])


def test_rules_of_mixing(model, rows):
    published, present = model.embed(rows)
    unit, _ = model.embed(rows, rule="unit")
    torch.testing.assert_close(unit[present].norm(dim=-1), torch.ones(3))
    directions = torch.nn.functional.normalize(published[present], dim=-1)
    torch.testing.assert_close(unit[present], directions, atol=1e-6, rtol=0)


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
adapter: {{prompt_length: 1, prompt_layers: -1}}
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
