import pytest

from llama_adapter.errors import UserError
from llama_adapter.evaluation.captions.coco import Captioned, read_references
from llama_adapter.evaluation.question_media import MediaFinder
from llama_adapter.media import MediaItem


def karpathy(*splits):
    images = [
        {
            "cocoid": 100 + number,
            "imgid": number,
            "split": split,
            "filepath": "val2014",
            "filename": f"{number}.jpg",
            "sentences": [{"raw": f"caption {number} {part}", "tokens": []} for part in "ab"],
        }
        for number, split in enumerate(splits)
    ]
    return {"images": images, "dataset": "coco"}


def test_karpathy_splits(save, tmp_path):
    path = save("dataset_coco.json", karpathy("train", "restval", "val", "test", "train"))
    ids = {
        split: [item.id for item in read_references(path, split)]
        for split in ("train", "restval", "val", "test")
    }
    assert ids == {"train": ["100", "104"], "restval": ["101"], "val": ["102"], "test": ["103"]}
    assert [item.id for item in read_references(path, "trainrestval")] == ["100", "101", "104"]
    (item,) = read_references(path, "test", MediaFinder(str(tmp_path)))
    assert item == Captioned("103", ["caption 3 a", "caption 3 b"], (MediaItem("image", "val2014/3.jpg"),))
    assert read_references(path, "test") == [Captioned("103", ["caption 3 a", "caption 3 b"])]
    for split in ("dev", None):
        with pytest.raises(UserError, match="Use one of restval, test, train, val, trainrestval"):
            read_references(path, split)


def test_annotation_files_collect_captions_by_image(save, tmp_path):
    rows = [{"image_id": 7, "id": n, "caption": text} for n, text in enumerate(["one", "two"])]
    content = {"images": [{"id": 7, "file_name": "7.jpg"}], "annotations": rows}
    (item,) = read_references(save("a.json", content), finder=MediaFinder(str(tmp_path)))
    assert item == Captioned("7", ["one", "two"], (MediaItem("image", "7.jpg"),))
    (tmp_path / "7.jpg").touch()
    (item,) = read_references(save("a.json", content), finder=MediaFinder(str(tmp_path)))
    assert item.media == (MediaItem("image", str(tmp_path / "7.jpg")),)
    assert read_references(save("b.json", {"annotations": rows})) == [Captioned("7", ["one", "two"])]
    content["images"].append({"id": 8, "file_name": "8.jpg"})
    with pytest.raises(UserError, match="no caption for '8'. Add one"):
        read_references(save("c.json", content))


def test_pictures_are_found_by_their_ids(save, tmp_path):
    folder = tmp_path / "val2014"
    folder.mkdir()
    (folder / "COCO_val2014_000000000007.jpg").touch()
    path = save("a.json", {"7": ["one"], "8": ["two"]})
    found = read_references(path, finder=MediaFinder(str(tmp_path)))
    assert [item.media[0].content for item in found] == [str(folder / "COCO_val2014_000000000007.jpg"), "8"]
    (folder / "8.jpg").touch()
    pattern = MediaFinder(str(tmp_path), pattern="val2014/{image_id}.jpg")
    assert read_references(path, finder=pattern)[1].media[0].content == str(folder / "8.jpg")


def test_every_layout_of_references_is_the_same(save):
    expected = [Captioned("1", ["one", "two"]), Captioned("2", ["three"])]
    pairs = [(item.id, said) for item in expected for said in item.captions]
    layouts = [
        {"1": [{"caption": "one"}, {"caption": "two"}], "2": [{"caption": "three"}]},
        {"1": ["one", "two"], "2": "three"},
        [
            {"image_id": 1, "caption": "one"},
            {"image_id": 1, "caption": "two"},
            {"image_id": 2, "caption": "three"},
        ],
        [{"image_id": int(name), "caption": said, "id": n} for n, (name, said) in enumerate(pairs)],
        [{"id": 1, "references": [{"raw": "one"}, {"raw": "two"}]}, {"id": "2", "captions": ["three"]}],
    ]
    for number, layout in enumerate(layouts):
        assert read_references(save(f"{number}.json", layout)) == expected, layout


def test_plain_files(save):
    expected = [Captioned("x", ["one", "two"]), Captioned("y", ["three"])]
    assert read_references(save("a.json", {"x": ["one", "two"], "y": "three"})) == expected
    rows = [{"id": "x", "captions": ["one", "two"]}, {"id": "y", "captions": ["three"]}]
    assert read_references(save("b.jsonl", rows)) == expected


@pytest.mark.parametrize(
    ("content", "split", "said"),
    [
        ([], None, "holds no captions"),
        (3, None, "holds a int. Use COCO's"),
        ([{"id": 1}], None, "none of the fields captions"),
        (["x"], None, "record 1 is 'x'"),
        ([{"id": 1, "captions": ["a"]}] * 2, None, "'1' come more than once"),
        ({"x": [["a", "b"]]}, None, "its caption is .*Use one text"),
        ({"x": [{"text": "a", "caption": "b"}]}, None, "several answers"),
        ({"x": [None]}, None, "is None. Use a text"),
        ({"images": [3], "annotations": []}, None, "record 1 is 3. Use an object"),
        ({"images": 3, "annotations": []}, None, "where images are listed"),
        ({"x": ["a"]}, "val", "has no splits, but split is 'val'. Leave it out"),
    ],
)
def test_what_is_no_reference_file_is_refused(save, content, split, said):
    with pytest.raises(UserError, match=said):
        read_references(save("a.json", content), split)
