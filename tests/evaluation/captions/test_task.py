import json

import pytest

from llama_adapter.cli import main

pytest.importorskip("pycocoevalcap", reason="pip install pycocoevalcap")


def files(save):
    rows = [{"image_id": n, "id": n, "caption": f"a dog number {n} runs on grass"} for n in range(4)]
    references = save("captions.json", {"images": [{"id": n} for n in range(4)], "annotations": rows})
    results = save(
        "results.json", [{"image_id": n, "caption": f"A dog number {n} runs on grass."} for n in range(4)]
    )
    return references, results


def test_coco_results_against_coco_annotations(save, evaluate):
    references, results = files(save)
    found, items, printed = evaluate(
        "coco-caption", references=references, predictions=results, java_scores="false"
    )
    assert found["scores"]["BLEU-4"] == pytest.approx(1)
    assert found["scores"]["CIDEr"] > 1
    assert [item["id"] for item in items] == ["0", "1", "2", "3"]
    assert set(items[0]) >= {"caption", "references", "BLEU-1", "ROUGE-L", "CIDEr"}
    assert "papers print them times 100" in printed


def test_images_without_caption_are_named(save, refused):
    references, _ = files(save)
    results = save("results.json", [{"image_id": 0, "caption": "a"}])
    said = refused("coco-caption", references=references, predictions=results)
    assert "3 of 4 questions have no prediction: '1', '2', '3'" in said


def test_questions_ask_for_a_caption_of_every_picture(save, tmp_path):
    references = save("r.json", [{"id": "x", "captions": ["a"], "image": "x.jpg"}])
    (tmp_path / "x.jpg").touch()
    out = tmp_path / "q.jsonl"
    words = ["--references", references, "--images", str(tmp_path), "--questions", str(out)]
    assert main(["evaluate", "coco-caption", *words]) == 0
    row = json.loads(out.read_text())
    assert (row["id"], row["prompt"]) == ("x", "Generate caption of this image")
    assert row["image"] == str(tmp_path / "x.jpg")
