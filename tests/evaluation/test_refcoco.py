import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.evaluation.box_units import iou, to_pixels
from llama_adapter.evaluation.refcoco import published_box, read_box

NUMBERS = st.floats(-2, 2, allow_nan=False)
BOXES = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@pytest.mark.parametrize("as_published", [True, False])
def test_published_cases_from_the_command_line(golden, save, evaluate, as_published):
    rows = golden["refcoco"]
    references = save(
        "r.json",
        [
            {
                "question_id": f"height{row['height']}_width{row['width']}",
                "gt_answers": row["gt_box_abs_xyxy"],
            }
            for row in rows
        ],
    )
    predictions = save("p.json", [{"answer": row["answer"]} for row in rows])
    found, items, _ = evaluate(
        "refcoco", references=references, predictions=predictions, as_published=as_published
    )
    assert [item["iou"] >= 0.5 for item in items] == [row["correct"] for row in rows]
    assert found["settings"]["unread"] == 2


def test_boxes_are_found_in_sentences():
    for answer in (
        "[0.1, 0.2,0.3 ,0.4]",
        "at [.1,.2,.3,.4].",
        "0.1 0.2 0.3 0.4",
        "[x] then [0.1,0.2,0.3,0.4]",
    ):
        assert read_box(answer) == (0.1, 0.2, 0.3, 0.4)
    assert read_box("[0.1,0.2,0.3]") is None
    assert published_box("0.1,0.2,0.3,0.4] and more") == (0.1, 0.2, 0.3, 0.4)
    assert published_box("[x] then [0.1,0.2,0.3,0.4]") is None


@given(BOXES, st.integers(1, 2000), st.integers(1, 2000))
def test_the_same_box_in_every_system_of_coordinates(box, height, width):
    pixels = to_pixels(box, height, width, "image")
    side = max(height, width)
    right, down = (side - width) // 2, (side - height) // 2
    square = (
        (pixels[0] + right) / side,
        (pixels[1] + down) / side,
        (pixels[2] + right) / side,
        (pixels[3] + down) / side,
    )
    assert to_pixels(square, height, width, "square") == pytest.approx(pixels, abs=1e-6)
    at_end = tuple(value / max(height, width) for value in pixels)
    assert to_pixels(at_end, height, width, "square_end") == pytest.approx(pixels, abs=1e-6)
    assert to_pixels(pixels, height, width, "pixels") == pixels
    thousandths = (box[0] * 1000, box[1] * 1000, box[2] * 1000, box[3] * 1000)
    assert to_pixels(thousandths, height, width, "thousandths") == pytest.approx(pixels, abs=1e-6)


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_a_share(first, second):
    assert iou(first, second) == pytest.approx(iou(second, first))
    assert 0 <= iou(first, second) <= 1 + 1e-9


def test_overlap_of_known_boxes():
    assert iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert iou((0, 0, 2, 2), (2, 2, 3, 3)) == 0
    assert iou((2, 2, 0, 0), (0, 0, 2, 2)) == 0


@given(st.text())
def test_any_answer_can_be_read(answer):
    read_box(answer)
    published_box(answer)


def test_records_must_say_their_size_and_box(save, refused):
    predictions = save("p.json", {"1": "[0,0,1,1]"})
    references = save("r.json", [{"id": 1, "bbox": [0, 0, 1, 1]}])
    assert "Add height and width" in refused("refcoco", references=references, predictions=predictions)
    references = save("r.json", [{"id": 1, "bbox": [0, 0, 1], "height": 4, "width": 4}])
    assert "Use left, top, right, bottom" in refused(
        "refcoco", references=references, predictions=predictions
    )


def test_wrong_units_are_said_or_refused(save, evaluate, refused):
    rows = [{"question_id": "q1", "question": "cat", "height": 480, "width": 640}]
    references = save("r.json", [rows[0] | {"gt_answers": [100, 120, 300, 360]}])
    thousandths = save("p.json", [{"question_id": "q1", "answer": "[156,250,469,750]"}])
    for unit in ("image", "square"):
        found, _, printed = evaluate(
            "refcoco", references=references, predictions=thousandths, coordinates=unit
        )
        assert found["scores"]["precision@0.5"] == 0
        assert "1 of 1 boxes have numbers outside of the picture." in printed
        assert "With thousandths 1 of them would be right, not 0." in printed
    found, _, printed = evaluate(
        "refcoco", references=references, predictions=thousandths, coordinates="thousandths"
    )
    assert (found["scores"]["precision@0.5"], found["notes"]) == (100, [])
    coco = save("c.json", [rows[0] | {"bbox": [300, 120, 100, 240]}])
    for answer in ("[300,120,400,360]", [300, 120, 400, 360]):
        pixels = save("q.json", [{"question_id": "q1", "answer": answer}])
        options = {"references": coco, "predictions": pixels, "coordinates": "pixels"}
        said = refused("refcoco", **options)
        assert "its right or lower edge comes before the other. Use --boxes pixels_xywh" in said
        found, _, _ = evaluate("refcoco", **options, boxes="pixels_xywh")
        assert found["scores"]["precision@0.5"] == 100


def test_real_references_found_exactly_score_100(shared_data, save, evaluate):
    import json

    path = shared_data / "refcoco/refcoco_val_sample400.json"
    answers = [{"answer": str(row["gt_answers"])} for row in json.loads(path.read_text())]
    predictions = save("p.json", answers)
    found, _, _ = evaluate("refcoco", references=path, predictions=predictions, coordinates="pixels")
    assert found["scores"]["precision@0.5"] == 100
    assert found["counts"]["precision@0.5"] == 400
