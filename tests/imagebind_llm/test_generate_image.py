"""The verb, with a pipeline that keeps what it got."""

import pytest
import torch
from PIL import Image
from torch.nn import functional

import imagebind_llm.generate_image as verb
from imagebind_llm.cache.build import BuildConfig, build
from imagebind_llm.cache.indexing import IndexConfig
from imagebind_llm.processing.processor import ImageBindProcessor
from llama_adapter.cli import main
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.imagebind_llm.processing.test_processor import write_files
from tests.imagebind_llm.test_unclip import FakePipeline


class Canvas(FakePipeline):
    """Gives real pictures."""

    dtype = torch.float32

    def __call__(self, **given):
        found = super().__call__(**given)
        found.images = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in range(len(found.images))]
        return found


@pytest.fixture
def canvas(monkeypatch):
    pipeline = Canvas()
    monkeypatch.setattr(verb, "load_pipeline", lambda name, device: pipeline)
    return pipeline


def test_inputs_of_several_modalities_become_pictures(canvas, tmp_path, capsys):
    files = write_files(tmp_path)
    model, processor = tiny_model(), ImageBindProcessor()
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    image, sound, cloud = files["vision"][0], files["audio"], files["point"][0]
    words = ["--image", f"{image}:0.5", "--audio", f"{sound}:0.25", "--point", f"{cloud}:0.25"]
    words += ["--pictures", "2", "--seed", "1", "--noise-level", "7", "--prompt", "at night"]
    words += [
        "--output",
        str(tmp_path / "out/drawn.png"),
        "--unclip",
        "any",
        "--model",
        str(tmp_path / "model"),
    ]
    assert main(["generate-image", *words]) == 0
    with torch.no_grad():
        inputs = processor({"vision": [image], "audio": [sound], "point": [cloud]})
        features = model(inputs).features
    expected = 0.5 * features["vision"] + 0.25 * features["audio"] + 0.25 * features["point"] / 5
    torch.testing.assert_close(canvas.given["image_embeds"], expected, rtol=1e-4, atol=1e-5)
    assert (canvas.given["noise_level"], canvas.given["prompt"]) == (7, ["at night"])
    assert Image.open(tmp_path / "out/drawn-2.png").getpixel((0, 0)) == (1, 0, 0)
    assert "drawn-1.png" in capsys.readouterr().out


def test_a_cache_turns_the_mix_but_keeps_its_length(canvas, tmp_path):
    files = write_files(tmp_path)
    model = tiny_model("vision")
    model.save_pretrained(tmp_path / "model")
    ImageBindProcessor().save_pretrained(tmp_path / "model")
    stored = functional.normalize(torch.randn(5, 16), dim=1)
    torch.save(stored, tmp_path / "stored.pt")
    build(
        BuildConfig(
            cache=str(tmp_path / "cache"), source=str(tmp_path / "stored.pt"), index=IndexConfig(kind="exact")
        )
    )
    words = ["--image", str(files["vision"][0]), "--output", str(tmp_path / "drawn.png"), "--unclip", "any"]
    words += ["--model", str(tmp_path / "model")]
    assert main(["generate-image", *words]) == 0
    plain = canvas.given["image_embeds"]
    assert (
        main(["generate-image", *words, "--visual-cache", str(tmp_path / "cache"), "--cache-weight", "1"])
        == 0
    )
    drawn = canvas.given["image_embeds"]
    torch.testing.assert_close(drawn.norm(), plain.norm(), rtol=1e-4, atol=1e-5)
    shares = (20 * functional.normalize(plain, dim=1) @ stored.half().float().T).softmax(1)
    expected = functional.normalize(shares @ stored, dim=1)
    assert functional.cosine_similarity(drawn, expected).item() > 0.999


def test_nothing_to_draw_and_no_diffusers(tmp_path, capsys):
    words = ["--output", str(tmp_path / "a.png"), "--unclip", "any", "--model", str(tmp_path)]
    assert main(["generate-image", *words]) == 2
    assert "nothing to draw. Use one of --image" in capsys.readouterr().err
