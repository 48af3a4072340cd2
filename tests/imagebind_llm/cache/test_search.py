"""``cache search``: neighbours of pictures, texts and features, printed, written and drawn."""

import json

import faiss
import numpy as np
import pytest
import torch
from PIL import Image

from imagebind_llm import ImageBindProcessor
from llama_adapter.cli import main
from tests.imagebind_llm.cache.caches import make_cache, random_features, stored
from tests.imagebind_llm.imagebind.test_model import tiny_model
from tests.vision.tiny_encoders import draw


@pytest.fixture(scope="module")
def imagebind(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imagebind")
    tiny_model("vision", "text").save_pretrained(folder)
    ImageBindProcessor().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder, 4)
    return folder


@pytest.fixture(scope="module")
def cache(imagebind, pictures, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("cache"))
    assert (
        main(["cache", "build", "--cache", folder, "--source", str(pictures), "--imagebind", imagebind]) == 0
    )
    return folder


def search(cache, *words):
    return main(["cache", "search", "--cache", str(cache), *words])


def test_pictures_find_themselves(cache, imagebind, pictures, tmp_path, capsys):
    queries = [str(pictures / "2.png"), str(pictures / "0.png")]
    words = [word for query in queries for word in ("--query", query)]
    files = ["--output", str(tmp_path / "found.jsonl"), "--contact-sheet", str(tmp_path / "sheet.png")]
    assert search(cache, "--imagebind", imagebind, *words, "--search.top_k", "3", *files) == 0
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line["query"] for line in found] == queries
    assert [line["neighbours"][0]["item"] for line in found] == ["2.png", "0.png"]
    assert all(len(line["neighbours"]) == 3 for line in found)
    assert found[0]["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert capsys.readouterr().out.splitlines()[0] == queries[0]
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    middle = pixels[:184].reshape(184, -1)
    assert (middle != 255).any()
    same = pixels[8 + 36 : 8 + 120, 8 : 8 + 160], pixels[8 + 36 : 8 + 120, 16 + 168 : 16 + 168 + 160]
    assert np.array_equal(*same)  # the query beside itself
    assert (same[0] != 255).any()


def test_texts_ask(cache, imagebind, tmp_path, capsys):
    words = ["--modality", "text", "--query", "a dog", "--contact-sheet", str(tmp_path / "sheet.png")]
    assert search(cache, "--imagebind", imagebind, *words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a dog"
    assert len(said) == 5
    similarities = [float(line.split()[0]) for line in said[1:]]
    assert all(abs(value) <= 1.001 for value in similarities)  # cosines, whatever the modality's scale
    assert similarities == sorted(similarities, reverse=True)


def test_features_ask(tmp_path, capsys):
    features = random_features(30)
    cache = make_cache(tmp_path, features)
    torch.save(5 * features[[4, 9]], tmp_path / "asking.pt")
    assert search(cache, "--features", str(tmp_path / "asking.pt"), "--search.top_k", "1") == 0
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines[::2] == ["asking.pt:0", "asking.pt:1"]
    for line, row in zip(lines[1::2], (4, 9), strict=True):
        similarity, item = line.split()
        assert float(similarity) == pytest.approx(1, abs=1e-3)
        assert item == f"features.npy:{row}"


def test_an_index_file_is_asked(tmp_path, capsys):
    features = stored(random_features(30))
    index = faiss.IndexFlatIP(features.shape[1])
    index.add(features.numpy())
    faiss.write_index(index, str(tmp_path / "knn.index"))
    np.save(tmp_path / "a.npy", features[[3]].numpy())
    words = ["--features", str(tmp_path / "a.npy")]
    assert search(tmp_path / "knn.index", *words) == 0
    assert "row 3" in capsys.readouterr().out
    assert search(tmp_path / "knn.index", *words, "--contact-sheet", "x.png") == 2
    assert "names no pictures" in capsys.readouterr().err


def test_what_asks_must_be_clear(cache, pictures, capsys):
    assert search(cache) == 2
    assert "Give files that ask, or a file of features" in capsys.readouterr().err
    assert search(cache, "--query", str(pictures / "0.png")) == 2
    assert "Name one of them: the encoder of the pictures" in capsys.readouterr().err
