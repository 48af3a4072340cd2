"""``cache build``: whole, divided or stopped, the same rows; what cannot be used is left out by name."""

import json
import tarfile

import pytest
import torch
from filelock import FileLock
from PIL import Image

from imagebind_llm import ImageBindProcessor, VisualCache, encoder_record
from imagebind_llm.cache import build as building
from imagebind_llm.cache.parts import part_folder
from llama_adapter.cli import main
from llama_adapter.vision import VisionConfig
from tests.imagebind_llm.cache.caches import contents, random_features
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.vision.tiny_encoders import config_of, draw


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Options of a small encoder."""
    config = config_of("test_vit", tmp_path_factory.mktemp("encoder"))
    return [
        *("--vision.kind", config.kind),
        *("--vision.name_or_path", config.name_or_path),
        *("--vision.weights", config.weights),
    ]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Nine pictures, of which one is damaged and one empty."""
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder, 9)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    (folder / "5.png").write_bytes(b"")
    return folder


def build(cache, pictures, encoder, *more):
    words = ["--cache", str(cache), "--source", str(pictures), "--batch-size", "2", *encoder, *more]
    return main(["cache", "build", *words])


def rows_of(cache):
    opened = VisualCache.open(cache)
    names = [opened.name(row) for row in range(len(opened))]
    return names, opened.features.rows(torch.arange(len(opened)))


def test_pictures_become_rows_and_bad_ones_are_named(pictures, encoder, tmp_path, capsys):
    assert build(tmp_path / "cache", pictures, encoder) == 0
    names, rows = rows_of(tmp_path / "cache")
    assert names == [f"{number}.png" for number in (0, 1, 2, 4, 6, 7, 8)]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(7), atol=1e-3, rtol=0)
    said = capsys.readouterr().err
    assert "left out 3.png: " in said
    assert "7 rows, 2 items left out, index exact" in said
    skipped = (part_folder(tmp_path / "cache", 1, 1) / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in skipped] == ["3.png", "5.png"]
    assert main(["cache", "info", "--cache", str(tmp_path / "cache")]) == 0
    told = capsys.readouterr().out
    assert "left out   2" in told
    assert "'timm test_vit'" in told


def test_tar_files_give_the_same_rows(pictures, encoder, tmp_path):
    build(tmp_path / "folder", pictures, encoder)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in sorted(pictures.iterdir()):
            tar.add(path, path.name)
    build(tmp_path / "tar", tmp_path / "a.tar", encoder)
    assert torch.equal(rows_of(tmp_path / "tar")[1], rows_of(tmp_path / "folder")[1])
    skipped = (part_folder(tmp_path / "tar", 1, 1) / "skipped.jsonl").read_text()
    assert "0x" not in skipped  # no addresses: the same bytes every time


def test_processes_share_the_work(pictures, encoder, tmp_path):
    build(tmp_path / "one", pictures, encoder)
    for shard in (3, 1, 2):
        assert main(["cache", "index", "--cache", str(tmp_path / "three")]) == 2
        assert build(tmp_path / "three", pictures, encoder, "--shard", f"{shard}/3") == 0
    assert main(["cache", "index", "--cache", str(tmp_path / "three")]) == 0
    one, three = rows_of(tmp_path / "one"), rows_of(tmp_path / "three")
    assert one[0] == three[0]
    assert torch.equal(one[1], three[1])


@pytest.mark.parametrize("saved", [0.0, 1e9])
def test_a_stopped_build_goes_on_and_gives_the_same_bytes(saved, pictures, encoder, tmp_path, monkeypatch):
    build(tmp_path / "whole", pictures, encoder)
    monkeypatch.setattr(building, "_SAVE_SECONDS", saved)
    blocks = building.PictureRows.blocks

    def interrupted(self, first, stop):
        for number, block in enumerate(blocks(self, first, stop)):
            if number == 2:
                raise KeyboardInterrupt
            yield block

    with monkeypatch.context() as patch:
        patch.setattr(building.PictureRows, "blocks", interrupted)
        assert build(tmp_path / "stopped", pictures, encoder) == 130
    started = []
    monkeypatch.setattr(
        building.PictureRows,
        "blocks",
        lambda self, first, stop: (started.append(first), blocks(self, first, stop))[1],
    )
    assert build(tmp_path / "stopped", pictures, encoder) == 0
    assert started == [2 if saved == 0 else 0]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert build(tmp_path / "stopped", pictures, encoder) == 0  # nothing to do
    assert len(started) == 1


def test_too_many_bad_pictures_stop_it(pictures, encoder, tmp_path, capsys):
    assert build(tmp_path / "cache", pictures, encoder, "--max-skipped", "1") == 2
    assert "2 items cannot be used, listed in" in capsys.readouterr().err
    assert build(tmp_path / "cache", pictures, encoder) == 0
    assert len(rows_of(tmp_path / "cache")[0]) == 7


def test_another_encoder_or_other_items_are_refused(pictures, encoder, tmp_path, capsys):
    assert build(tmp_path / "cache", pictures, encoder) == 0
    other = config_of("test_convnext", tmp_path)
    changed = ["--vision.kind", "timm", "--vision.name_or_path", other.name_or_path]
    changed += ["--vision.weights", other.weights]
    assert build(tmp_path / "cache", pictures, changed) == 2
    assert "holds a cache of something else: encoder 'timm test_vit'" in capsys.readouterr().err
    assert build(tmp_path / "cache", pictures, encoder, "--shard", "1/2") == 2
    assert "shards 1 there, 2 here" in capsys.readouterr().err
    query = ["--query", str(pictures / "0.png")]
    assert main(["cache", "search", "--cache", str(tmp_path / "cache"), *changed, *query]) == 2
    assert "was built with 'timm test_vit'" in capsys.readouterr().err


def test_one_process_at_a_time(pictures, encoder, tmp_path, capsys):
    folder = part_folder(tmp_path / "cache", 1, 1)
    folder.mkdir(parents=True)
    with FileLock(folder / "lock"):
        assert build(tmp_path / "cache", pictures, encoder) == 2
    assert "Another process is working at" in capsys.readouterr().err


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "-1/2"])
def test_shards_are_checked(shard, pictures, encoder, tmp_path, capsys):
    assert build(tmp_path / "cache", pictures, encoder, f"--shard={shard}") == 2
    assert f"shard is '{shard}'. Use the part and how many there are" in capsys.readouterr().err


def test_an_encoder_must_be_named_for_pictures_and_fit_features(pictures, encoder, tmp_path, capsys):
    assert build(tmp_path / "cache", pictures, []) == 2
    assert "Name one of them: the encoder of the pictures" in capsys.readouterr().err
    torch.save(random_features(5, 3), tmp_path / "a.pt")
    assert build(tmp_path / "cache", tmp_path / "a.pt", encoder) == 2
    assert "The features have the width 3" in capsys.readouterr().err


def test_imagebind_encodes_and_is_recognised(pictures, tmp_path):
    model = tiny_model("vision", "text")
    model.save_pretrained(tmp_path / "imagebind")
    ImageBindProcessor().save_pretrained(tmp_path / "imagebind")
    assert build(tmp_path / "cache", pictures, ["--imagebind", str(tmp_path / "imagebind")]) == 0
    config = VisionConfig(kind="imagebind", name_or_path=str(tmp_path / "imagebind"), dtype="bfloat16")
    cache = VisualCache.open(tmp_path / "cache", encoder=encoder_record(config))
    assert cache.encoder == encoder_record(config)
    values = ImageBindProcessor()({"vision": [str(pictures / "7.png")]})
    with torch.no_grad():
        embedding = model(values).embeddings["vision"]
    names, rows = rows_of(tmp_path / "cache")
    torch.testing.assert_close(rows[names.index("7.png")][None], embedding, atol=1e-3, rtol=0)


def test_huge_pictures_are_left_out(tmp_path, encoder, monkeypatch, capsys):
    draw(tmp_path / "pictures", 2)
    Image.new("L", (3000, 3000)).save(tmp_path / "pictures" / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    assert build(tmp_path / "cache", tmp_path / "pictures", encoder) == 0
    assert "left out huge.png" in capsys.readouterr().err
