"""The published conversation: its text, tokens and labels beside those of the released code."""

import json

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from llama_adapter.data import Encoder, Turn, load_template
from llama_adapter.data.encoding import IGNORE, answer_labels
from llama_adapter.data.records import RecordProblem
from llama_adapter.generation import Generator, SamplingConfig
from sphinx_ft.conversation import END
from tests.sphinx_ft.golden_cases import GOLDEN
from tests.tiny import byte_tokenizer, tiny_llama

ROLES = {"human": "user", "gpt": "assistant", "assistant": "assistant"}


@pytest.fixture(scope="module")
def golden():
    path = GOLDEN / "sphinx_dialog_sampler_lr.safetensors"
    return load_file(path), json.loads(path.with_suffix(".json").read_text())["facts"]


@pytest.fixture(scope="module")
def tokenizer(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "tokenizer.model").write_bytes(golden[0]["in/spm_model_bytes"].numpy().tobytes())
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true}'
    )
    return AutoTokenizer.from_pretrained(folder)


def turns_of(conversation):
    """Turns as the data readers make them: markers of images are taken out."""
    return [Turn(ROLES[one["from"]], one["value"].replace("<image>", "").strip()) for one in conversation]


def encoded(template, tokenizer, turns):
    rendered = template.render(turns)
    (found,) = Encoder(tokenizer).encode([rendered], template.add_special_tokens)
    return rendered, found, answer_labels(found, rendered.answers)


@pytest.mark.parametrize("name", ["sphinx", "sphinx_as_published"])
def test_text_and_tokens_are_the_originals(golden, tokenizer, name):
    template = load_template(name, tokenizer)
    for item in golden[1]["rendered"]:
        rendered, found, _ = encoded(template, tokenizer, turns_of(item["conversations"]))
        assert rendered.text == item["text"]
        assert [*found.ids, tokenizer.eos_token_id] == item["ids"]


def test_prompts_are_the_originals(golden, tokenizer):
    template = load_template("sphinx", tokenizer)
    asked = [Turn("user", "What's in the image?")]
    assert template.render_prompt(asked) == golden[1]["prompt_one_turn"]
    both = [Turn("user", "q1"), Turn("assistant", "a1"), Turn("user", "q2")]
    assert template.render_prompt(both) == golden[1]["prompt_two_turns"]
    assert golden[1]["response_end_signal"] == END == template.end_token


def published(golden, tokenizer, name):
    """Ours and the original's labels of every record, in the golden's order; 0 where there is no loss."""
    tensors, facts = golden
    for place, beginning in enumerate(facts["order_after_length_sort"]):
        conversation = next(
            item["conversations"]
            for item in facts["rendered"]
            if item["conversations"][0]["value"].replace("<image>", "").strip().startswith(beginning[:20])
        )
        _, found, labels = encoded(load_template(name, tokenizer), tokenizer, turns_of(conversation))
        ids, wanted = (
            tensors[f"out/dialog{place}.input_ids"].tolist(),
            tensors[f"out/dialog{place}.labels"].tolist(),
        )
        length = min(len(found.ids), len(ids))
        assert ids[:length] == found.ids[:length]
        yield [0 if label == IGNORE else label for label in labels[:length]], wanted[:length]


def test_labels_as_published_are_the_originals(golden, tokenizer):
    for ours, wanted in published(golden, tokenizer, "sphinx_as_published"):
        assert ours == wanted


def test_labels_from_offsets_differ_where_the_original_is_wrong(golden, tokenizer):
    same = [ours == wanted for ours, wanted in published(golden, tokenizer, "sphinx")]
    assert same == [False, True, True, True, True]
    ours, wanted = next(published(golden, tokenizer, "sphinx"))
    labelled = [[place for place, label in enumerate(labels) if label] for labels in (ours, wanted)]
    # the original trains the question's "yes" and the first answer, and not the second
    assert labelled[0][:4] == labelled[1][4:]
    assert labelled[0][-1] == len(ours) - 1


def test_a_system_turn_takes_the_place_of_the_sentence(tokenizer):
    text = load_template("sphinx", tokenizer).render_prompt([Turn("system", "Be brief."), Turn("user", "Hi")])
    assert text == "Be brief.\n\n### Human: Hi\n### Assistant:"
    with pytest.raises(RecordProblem, match="system turn in the middle"):
        load_template("sphinx", tokenizer).render_prompt([Turn("user", "Hi"), Turn("system", "Be brief.")])


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (" Paris\n###", "Paris"),
        (" Paris\n### Human: and", "Paris"),
        (" Paris\n#", "Paris"),
        (" a # b", "a # b"),
        ("", ""),
    ],
)
def test_the_answer_in_what_is_written(tokenizer, written, answer):
    assert load_template("sphinx", tokenizer).answer_text(written) == answer


def test_generation_stops_at_the_end(monkeypatch):
    """A model that always writes the same text, whose end are several tokens."""
    tokenizer, model = byte_tokenizer(), tiny_llama()
    generator = Generator(model, tokenizer, "sphinx")
    text = tokenizer(" Paris\n### Human: what", add_special_tokens=False)["input_ids"]
    start = len(generator.encode([Turn("user", "Where?")]))

    def logits(ids, scores):
        scores[:] = 0
        scores[:, text[min(ids.shape[1] - start, len(text) - 1)]] = 1
        return scores

    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **options: generate(**options, logits_processor=[logits]))
    pieces = []
    assert generator.generate(["Where?"], SamplingConfig(max_new_tokens=20)) == ["Paris"]
    said = generator.stream([Turn("user", "Where?")], SamplingConfig(max_new_tokens=20), pieces.append)
    assert said == "".join(pieces) == "Paris"
