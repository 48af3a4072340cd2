import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_adapter.errors import UserError
from llama_adapter.evaluation.captions.scores import score_captions, tokenized

pytest.importorskip("pycocoevalcap", reason="pip install pycocoevalcap")

# Written for this test; the scores are those of pycocoevalcap 1.2 with its Java tokeniser.
REFERENCES = {
    "1": ["A red kite flies over the beach.", "Somebody's kite, high above the sand."],
    "2": ["Two dogs -- one brown -- chase a ball.", "The dogs don't stop for the ball."],
    "3": ["A plate with 1/2 a sandwich (and chips)."],
}
CANDIDATES = {
    "1": "a kite flies above the beach",
    "2": "two brown dogs chase the ball.",
    "3": "A sandwich and chips on a plate",
}
EXPECTED = {
    "BLEU-1": 0.728166815,
    "BLEU-2": 0.494835056,
    "BLEU-3": 0.000002437,
    "BLEU-4": 0.000000006,
    "ROUGE-L": 0.607248803,
    "CIDEr": 2.035475625,
}
NAMES = {"BLEU-1": "Bleu_1", "BLEU-2": "Bleu_2", "BLEU-3": "Bleu_3", "BLEU-4": "Bleu_4"}
NAMES |= {"ROUGE-L": "ROUGE_L", "CIDEr": "CIDEr"}
WORDS = ["a", "dog", "cat", "runs", "sits", "on", "the", "red", "mat"]
CAPTION = st.lists(st.sampled_from(WORDS), min_size=4, max_size=9).map(" ".join)


def test_scores_of_the_package_with_its_java_tokeniser():
    found = score_captions(CANDIDATES, REFERENCES, java_scores=False)
    assert found.corpus == pytest.approx(EXPECTED, abs=1e-6)


@given(st.lists(CAPTION, min_size=3, max_size=6, unique=True))
@settings(max_examples=25, deadline=None)
def test_repeating_the_reference_scores_best(captions):
    references = {str(number): [caption, caption] for number, caption in enumerate(captions)}
    found = score_captions(
        {name: said[0] for name, said in references.items()}, references, java_scores=False
    )
    for order in range(1, 5):
        assert found.corpus[f"BLEU-{order}"] == pytest.approx(1, abs=1e-6)
    assert found.corpus["ROUGE-L"] == pytest.approx(1)
    assert found.corpus["CIDEr"] <= 10 + 1e-9


def test_cider_of_repeated_references_is_ten():
    references = {str(n): [" ".join(f"w{n}{k}" for k in range(6))] for n in range(5)}
    found = score_captions(
        {name: said[0] for name, said in references.items()}, references, java_scores=False
    )
    assert found.corpus["CIDEr"] == pytest.approx(10)


@given(st.permutations(sorted(REFERENCES)))
@settings(max_examples=6, deadline=None)
def test_the_order_of_the_images_does_not_matter(order):
    straight = score_captions(CANDIDATES, REFERENCES, java_scores=False)
    mixed = score_captions(CANDIDATES, {name: REFERENCES[name] for name in order}, java_scores=False)
    assert mixed.corpus == pytest.approx(straight.corpus, abs=1e-12)
    for name, values in straight.each.items():
        by_id = dict(zip(order, mixed.each[name], strict=True))
        assert [by_id[number] for number in REFERENCES] == pytest.approx(values, abs=1e-12)


def test_an_empty_caption_scores_nothing_and_one_image_has_no_cider():
    found = score_captions({"1": ""}, {"1": ["a dog"]}, java_scores=False)
    assert found.corpus["ROUGE-L"] == found.corpus["CIDEr"] == 0
    assert any("CIDEr is 0 for a single image" in note for note in found.notes)


def test_ids_must_agree():
    with pytest.raises(UserError, match=r"differ in \['2', '3'\]. Use the same ids"):
        score_captions({"1": "a", "2": "b"}, {"1": ["a"], "3": ["b"]})


def test_without_tokeniser_captions_are_cut_at_spaces():
    assert tokenized({"1": ["It's  A."]}, "none") == {"1": ["It's A."]}
    assert tokenized({"1": ["It's  A."]}, "python") == {"1": ["it 's a."]}


@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
def test_java_and_python_tokenisers_give_the_same_scores():
    by_java = score_captions(CANDIDATES, REFERENCES, "java", java_scores=False)
    assert by_java.corpus == score_captions(CANDIDATES, REFERENCES, "python", java_scores=False).corpus


def test_left_out_scores_are_noted(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = score_captions(CANDIDATES, REFERENCES)
    assert {note.split(" ")[0] for note in found.notes} == {"METEOR", "SPICE"}
    assert "METEOR" not in found.corpus


def test_464_real_captions_score_as_with_java(shared_data):
    content = json.loads((shared_data / "captions/golden_audiocaps_aac_example1.json").read_text())
    items = {item["id"]: item for item in content["items"]}
    found = score_captions(
        {name: item["candidate"] for name, item in items.items()},
        {name: item["references"] for name, item in items.items()},
        java_scores=False,
    )
    assert found.corpus == pytest.approx({k: content["corpus"][v] for k, v in NAMES.items()}, abs=1e-6)
    for name, values in found.each.items():
        assert values == pytest.approx([item["scores"][NAMES[name]] for item in items.values()], abs=1e-6)


@pytest.mark.parametrize("kind", ["good", "nlgeval"])
def test_published_scores(shared_data, kind):
    folder = shared_data / "captions"
    published = json.loads((folder / "published_scores.json").read_text())
    if kind == "good":
        references = json.loads((folder / "clipscore_refs.json").read_text())
        candidates = json.loads((folder / "clipscore_good_captions.json").read_text())
        expected, tokenizer, tolerance = published["clipscore_good (PTB)"], "python", 1e-4
    else:
        columns = [
            (folder / f"nlgeval_{name}.txt").read_text().splitlines() for name in ("hyp", "ref1", "ref2")
        ]
        candidates = {str(n): line for n, line in enumerate(columns[0])}
        references = {str(n): list(pair) for n, pair in enumerate(zip(*columns[1:], strict=True))}
        expected, tokenizer, tolerance = (
            published["nlgeval (no PTB tokenization; split on space)"],
            "none",
            1e-6,
        )
    found = score_captions(candidates, references, tokenizer, java_scores=False)
    assert found.corpus == pytest.approx({k: expected[v] for k, v in NAMES.items()}, abs=tolerance)


@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
@pytest.mark.slow
def test_published_meteor(shared_data):
    folder = shared_data / "captions"
    published = json.loads((folder / "published_scores.json").read_text())["clipscore_good (PTB)"]
    references = json.loads((folder / "clipscore_refs.json").read_text())
    candidates = json.loads((folder / "clipscore_good_captions.json").read_text())
    found = score_captions(candidates, references)
    assert found.corpus["METEOR"] == pytest.approx(published["METEOR"], abs=1e-4)
