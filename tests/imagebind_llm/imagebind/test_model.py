"""The model as a whole: parts of it, files, shapes of its inputs."""

import pytest
import torch

from imagebind_llm.clips import Clips
from imagebind_llm.imagebind.model import ImageBindModel, as_clips
from llama_adapter import UserError
from tests.imagebind_llm.tiny import TOWERS, tiny_config

SHAPES = {
    "vision": (3, 2, 28, 28),
    "audio": (1, 128, 204),
    "depth": (1, 224, 224),
    "thermal": (1, 224, 224),
    "imu": (6, 2000),
    "point": (40, 3),
}


def tiny_model(*modalities):
    torch.manual_seed(3)
    model = ImageBindModel(tiny_config(*modalities)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def inputs_of(modality, count):
    if modality == "text":
        return torch.randint(0, 49408, (count, 77))
    return torch.randn(count, *SHAPES[modality])


@pytest.mark.parametrize("modality", TOWERS)
def test_a_batch_equals_its_records_alone(modality):
    model, values = tiny_model(modality), inputs_of(modality, 3)
    with torch.no_grad():
        together = model({modality: values}).embeddings[modality]
        alone = torch.cat([model({modality: value[None]}).embeddings[modality] for value in values])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", TOWERS)
def test_gradients_reach_every_weight(modality):
    model = tiny_model(modality)
    model({modality: inputs_of(modality, 2)}).embeddings[modality].square().mul(
        torch.arange(16.0)
    ).sum().backward()
    unused = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum()]
    assert not [name for name in unused if "embedding" not in name]


def test_training_mode_runs_and_drops():
    model = tiny_model("imu").train()
    values = inputs_of("imu", 2)
    first, second = (model({"imu": values}).embeddings["imu"] for _ in range(2))
    assert not torch.equal(first, second)


def test_clips_of_unequal_records():
    model = tiny_model("audio")
    values = inputs_of("audio", 5)
    with torch.no_grad():
        found = model({"audio": Clips(values, (1, 4))}).embeddings["audio"]
        first = model({"audio": values[:1]}).embeddings["audio"]
        rest = model({"audio": values[None, 1:]}).embeddings["audio"]
    torch.testing.assert_close(found, torch.cat([first, rest]))
    assert found.norm(dim=1)[1] < found.norm(dim=1)[0]  # a mean of unit vectors is none


def test_an_image_is_a_clip_that_stands_still():
    model = tiny_model("vision")
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        forms = [
            model({"vision": values}).embeddings["vision"]
            for values in (
                image,
                image[:, :, None],
                image[:, :, None].expand(-1, -1, 2, -1, -1),
                image[:, None],
            )
        ]
    for form in forms[1:]:
        torch.testing.assert_close(form, forms[0])


@pytest.mark.parametrize(
    ("modality", "size"), [("vision", (42, 28)), ("depth", (160, 96)), ("thermal", (64, 64))]
)
def test_other_and_oblong_sizes(modality, size):
    channels = 3 if modality == "vision" else 1
    with torch.no_grad():
        found = tiny_model(modality)({modality: torch.randn(2, channels, *size)}).embeddings[modality]
    assert found.shape == (2, 16)
    assert found.isfinite().all()


def test_files_give_the_same_model(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    again = ImageBindModel.from_pretrained(tmp_path).eval()
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    values = {name: inputs_of(name, 1) for name in TOWERS}
    with torch.no_grad():
        one, other = model(values), again(values)
    for name in TOWERS:
        # some CPUs take another kernel for weights that lie elsewhere in memory
        torch.testing.assert_close(one.embeddings[name], other.embeddings[name], rtol=1e-5, atol=1e-6)


def test_a_part_is_read_alone(tmp_path, caplog):
    whole = tiny_model("vision", "text", "audio")
    whole.save_pretrained(tmp_path)
    part = ImageBindModel.from_pretrained(tmp_path, modalities=["text"])
    assert list(part.towers) == ["text"]
    assert "UNEXPECTED" not in caplog.text
    values = inputs_of("text", 2)
    with torch.no_grad():
        assert torch.equal(
            part({"text": values}).embeddings["text"], whole({"text": values}).embeddings["text"]
        )
    with pytest.raises(UserError, match="'audio' is no modality of this model. .*'text'"):
        part({"audio": inputs_of("audio", 1)})
    part.save_pretrained(tmp_path / "part")
    assert list(ImageBindModel.from_pretrained(tmp_path / "part").towers) == ["text"]
    with pytest.raises(
        UserError, match="does not fit the ImageBindModel(?s:.*)towers.vision.*is missing(?s:.*)Use the files"
    ):
        ImageBindModel.from_pretrained(tmp_path / "part", modalities=["vision"])


def test_half_precision(tmp_path):
    tiny_model("thermal", "point").save_pretrained(tmp_path)
    model = ImageBindModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    with torch.no_grad():
        found = model({"thermal": inputs_of("thermal", 1), "point": inputs_of("point", 1)}).embeddings
    assert {value.dtype for value in found.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("modality", "shape", "message"),
    [
        ("vision", (2, 3, 4, 28, 28), "shape .* Use 3 channel.* of 1 or 2 frames"),
        ("vision", (2, 1, 28, 28), "shape .* Use 3 channel"),
        ("depth", (2, 1, 8, 8), "shape .* at least 16"),
        ("imu", (2, 6, 1000), r"shape \(2, 6, 1000\). Use \(B, 6, 2000\)"),
        ("vision", (28, 28), r"'vision' have the shape \(28, 28\). Use 4 dimensions"),
        ("point", (10, 3), "'point' have the shape"),
        ("point", (1, 10, 3), "A cloud has 10 points. Use at least 24"),
    ],
)
def test_wrong_shapes(modality, shape, message):
    with pytest.raises(UserError, match=message):
        tiny_model(modality)({modality: torch.zeros(shape)})


def test_values_of_no_known_type():
    with pytest.raises(UserError, match="'audio' are a list. Use a tensor or Clips"):
        as_clips("audio", [torch.zeros(3, 3)])
