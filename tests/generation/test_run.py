"""The verb through the program: what stands on standard output, and in the answers file."""

import io
import json
import shutil

import pytest
import torch

from llama_adapter import ZeroInitConfig
from llama_adapter.cli import main
from llama_adapter.models import AdapterNotes, BaseModelConfig, attach_adapter, load_base, write_notes
from llama_adapter.multimodal import ImageConditionedModel
from llama_adapter.multimodal import ImageConditionedProcessor as Processor
from tests.multimodal.seeing import make_folder
from tests.vision.tiny_encoders import draw

TEXT = {"type": "text", "text": "Say"}


@pytest.fixture
def generate(tiny_base, capsys):
    def run(*arguments):
        code = main(["generate", "--base", str(tiny_base), "--max-new-tokens", "8", *arguments])
        return code, capsys.readouterr()

    return run


def test_only_the_answer_is_on_standard_output(generate):
    code, streams = generate("--prompt", "Count: 1 2 3")
    assert code == 0
    assert streams.err == "base, template chat\n"
    assert streams.out.endswith("\n")
    code, again = generate("--prompt", "Count: 1 2 3", "--prompt", "a")
    assert again.out.startswith(streams.out)


def test_a_file_of_prompts_is_answered_in_order(generate, tmp_path, capsys):
    (tmp_path / "q.txt").write_text("a\nCount: 1 2 3\nTell me\n")
    code, streams = generate("--prompt-file", "q.txt", "--output", "out/a.jsonl", "--batch-size", "2")
    assert (code, streams.out) == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "out/a.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["a", "Count: 1 2 3", "Tell me"]
    assert [row["id"] for row in rows] == ["q.txt:1", "q.txt:2", "q.txt:3"]
    assert {row["adapter"] for row in rows} == {"base"}
    _, streams = generate("--prompt", "Count: 1 2 3")
    assert streams.out.removesuffix("\n") == rows[1]["answer"]
    _, streams = generate("--prompt-file", "q.txt")
    assert streams.out == "".join(f"> {row['prompt']}\n{row['answer']}\n\n" for row in rows)


def test_a_record_keeps_its_own_id(generate, tmp_path):
    records = [{"id": "7", "prompt": "a"}, {"prompt": "b"}, {"id": 0, "prompt": "c"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert generate("--prompt-file", "q.jsonl", "--output", "a.jsonl")[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["7", "q.jsonl:2", 0]


def test_what_a_file_calls_its_columns_and_what_is_not_read(generate, tmp_path):
    (tmp_path / "q.csv").write_text("ask,topic,mood\na,x,y\nb,,y\n")
    words = [
        "--prompt-file",
        "q.csv",
        "--columns",
        "{prompt: ask}",
        "--ignore",
        "[mood]",
        "--output",
        "a.jsonl",
    ]
    code, streams = generate(*words)
    assert code == 0, streams.err
    assert "q.csv: not read: topic (1 records)\n" in streams.err
    assert "mood" not in streams.err
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["a", "b"]


def test_answers_to_the_questions_of_a_task_can_be_scored(generate, tmp_path):
    """The whole way: write what to ask, let a model answer, score its answers."""
    records = [{"question_id": n + 40, "question": f"Count to {n}", "answers": ["x"]} for n in range(3)]
    (tmp_path / "r.json").write_text(json.dumps(records))
    assert main(["evaluate", "vqa", "--references", "r.json", "--questions", "q.jsonl"]) == 0
    assert generate("--prompt-file", "q.jsonl", "--output", "a.jsonl")[0] == 0
    words = ["--references", "r.json", "--predictions", "a.jsonl", "--output", "s.json"]
    assert main(["evaluate", "vqa", *words]) == 0
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    items = [json.loads(line) for line in (tmp_path / "s.items.jsonl").read_text().splitlines()]
    assert [item["id"] for item in items] == [str(row["id"]) for row in answers] == ["40", "41", "42"]
    assert [item["answer"] for item in items] == [row["answer"] for row in answers]


def test_records_of_a_file_name_their_adapters(generate, tmp_path, tiny_base):
    """Each in its own template, in one batch with others; the base model among them."""
    given = []
    for name, gate, template in (("one", 1.0, "plain"), ("two", 2.0, "alpaca")):
        save_zero_init(tmp_path / name, tiny_base, gate, template)
        given += ["--adapter", name]
    wanted = ["two", "base", "one", None, "two"]
    records = [{"prompt": f"Count to {n}", "adapter": name} for n, name in enumerate(wanted)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    for chosen in ("one", "base"):
        code, _ = generate(*given, "--use", chosen, "--prompt-file", "q.jsonl", "--output", "a.jsonl")
        assert code == 0
        rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
        assert [row["adapter"] for row in rows] == [name or chosen for name in wanted]
        for row in rows:
            _, streams = generate(*given, "--use", row["adapter"], "--prompt", row["prompt"])
            assert streams.out.removesuffix("\n") == row["answer"]


def test_a_record_that_names_no_adapter_we_have_is_refused(generate, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "adapter": "none"}')
    code, streams = generate("--prompt-file", "q.jsonl")
    assert code == 2
    assert "q.jsonl:2: there is no adapter 'none'. Use one of: base." in streams.err
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "adapter": 3}')
    code, streams = generate("--prompt-file", "q.jsonl")
    assert code == 2
    assert "q.jsonl:1: the adapter 3 is no name; it must be a text" in streams.err


def test_chat_reads_lines_until_the_end(generate, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\n/reset\nb\n"))
    code, streams = generate("--interactive", "--template", "plain")
    assert code == 0
    assert streams.out.count("> ") >= 3
    assert "The conversation starts anew." in streams.out


def save_zero_init(folder, base, gate, template="plain"):
    """A fresh zero-init adapter whose gates all have one value."""
    config = BaseModelConfig(name_or_path=str(base))
    model = attach_adapter(load_base(config), ZeroInitConfig(prompt_length=10, task_type="CAUSAL_LM"))
    gates = [parameter for name, parameter in model.named_parameters() if "gate" in name]
    assert gates
    for parameter in gates:
        torch.nn.init.constant_(parameter, gate)
    model.save_pretrained(folder)
    write_notes(folder, AdapterNotes(template=template, base=str(base)))


def test_golden_text_with_a_zero_gate_and_another_text_with_an_open_one(shared_data, capsys):
    base = shared_data / "models" / "stories260k-hf"
    written = {}
    for name, gate, length in (("closed", 0.0, "200"), ("open", 2.0, "20")):
        save_zero_init(name, base, gate)
        assert main(["generate", "--adapter", name, "--prompt", "", "--max-new-tokens", length]) == 0
        written[name] = capsys.readouterr().out.removesuffix("\n")
    assert written["closed"] == (base / "expected_greedy_200.txt").read_text()
    assert not written["closed"].startswith(written["open"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Got no prompt. Use one of --prompt, --prompt-file, --interactive."),
        (("--prompt", "a", "--template", "alpacca"), "template is 'alpacca'"),
        (("--prompt-file", "none.txt"), "none.txt: No such file"),
        (("--prompt", "a", "--output", "."), "output is '.', a folder."),
        (("--prompt", "a", "--output", "file/a.jsonl"), "output is 'file/a.jsonl'"),
        (("--prompt", "a", "--top-p", "2"), "--top_p: got '2'. Use a share above 0 and up to 1."),
        (("--prompt", "a", "--adapter", "none"), "'none' does not exist"),
    ],
)
def test_wrong_input_leaves_with_2_and_one_message(generate, tmp_path, arguments, said):
    (tmp_path / "file").write_text("")
    code, streams = generate(*arguments)
    assert code == 2
    assert said in streams.err
    assert "Traceback" not in streams.err


# Images


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A folder with an adapter that sees, and two pictures beside it."""
    folder = make_folder(tmp_path_factory.mktemp("seeing"))
    return folder, draw(folder.parent, 2)


@pytest.fixture
def show(seeing, capsys):
    def run(*arguments):
        code = main(["generate", "--adapter", str(seeing[0]), "--max-new-tokens", "8", *arguments])
        return code, capsys.readouterr()

    return run


def test_an_adapter_needs_nothing_but_its_folder_and_an_image(show, seeing):
    _, (first, second) = seeing
    one = show("--prompt", "Say", "--image", first)[1].out
    two = show("--prompt", "Say", "--image", second)[1].out
    bare = show("--prompt", "Say")[1].out
    assert len({one, two, bare}) == 3
    words = ["--prompt", "Say", "--prompt", "Say"]
    assert show(*words, "--image", first, "--image", second)[1].out == one + two
    assert show(*words, "--image", first)[1].out == one + one
    model, processor = (kind.from_pretrained(seeing[0]) for kind in (ImageConditionedModel, Processor))
    message = {"role": "user", "content": [{"type": "image", "path": first}, {"type": "text", "text": "Say"}]}
    batch = processor.apply_chat_template([message], tokenize=True)
    new = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert processor.decode(new, skip_special_tokens=True) == one.removesuffix("\n")


def test_records_name_their_images(show, seeing, tmp_path):
    (tmp_path / "p").mkdir()
    for path in seeing[1]:
        shutil.copy(path, tmp_path / "p")
    records = [
        {"prompt": "Say", "image": "p/0.png"},
        {"conversations": [{"from": "human", "value": "<image>\nSay"}], "image": "p/1.png"},
        {"prompt": "Say"},
        {"messages": [{"role": "user", "content": [{"type": "image", "image": "p/0.png"}, TEXT]}]},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    for more in ([], ["--feature-cache", "cache"], ["--feature-cache", "cache", "--batch-size", "1"]):
        assert show("--prompt-file", "q.jsonl", "--output", "a.jsonl", *more)[0] == 0
        rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
        want = [show("--prompt", "Say", "--image", path)[1].out[:-1] for path in seeing[1]]
        assert [row["answer"] for row in rows[:2]] == want
        assert [row["answer"] for row in rows[2:]] == [show("--prompt", "Say")[1].out[:-1], want[0]]
        assert [row.get("image") for row in rows] == ["p/0.png", "p/1.png", None, "p/0.png"]


def test_adapters_that_see_and_others_share_a_file(seeing, tiny_base, tmp_path, capsys):
    folder, (path, _) = seeing
    blind = attach_adapter(
        load_base(BaseModelConfig(name_or_path=str(folder.parent / "base"))), ZeroInitConfig(prompt_length=3)
    )
    blind.save_pretrained(tmp_path / "blind")
    other = make_folder(folder.parent, seed=1)
    words = ["generate", "--max-new-tokens", "8", "--adapter", f"a={folder}", "--adapter", f"b={other}"]
    words += ["--adapter", "blind=blind"]
    records = [{"prompt": "Say", "image": path, "adapter": name} for name in "aba"]
    records += [{"prompt": "Say", "adapter": "blind"}, {"prompt": "Say", "adapter": "base"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert main([*words, "--prompt-file", "q.jsonl", "--output", "a.jsonl"]) == 0
    rows = [json.loads(line)["answer"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows[0] == rows[2]
    capsys.readouterr()
    for name, answer in (("a", rows[0]), ("b", rows[1])):
        assert main([*words, "--use", name, "--prompt", "Say", "--image", path]) == 0
        assert capsys.readouterr().out.removesuffix("\n") == answer
    records[3]["image"] = path
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert main([*words, "--prompt-file", "q.jsonl"]) == 2
    assert "'blind', which has no conditioner and sees none. Use an adapter" in capsys.readouterr().err


def test_images_that_cannot_be_shown_are_said(show, generate, seeing, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG no")
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "image": "none.png"}')
    (tmp_path / "two.jsonl").write_text('{"prompt": "a", "images": ["bad.png", "bad.png"]}')
    for words, said in (
        (["--prompt", "a", "--image", "bad.png"], "'bad.png' cannot be read as an image"),
        (["--prompt", "a", "--image", "bad.png", "--image", "bad.png"], "takes one image per prompt"),
        (["--prompt", "a", "--image", "bad.png:0.5"], "Use one image without a weight"),
        (["--prompt", "a", "--prompt", "b", *["--image", "bad.png"] * 3], "3 images came for 2 prompts"),
        (["--prompt-file", "q.jsonl"], "q.jsonl:1: The image 'none.png' does not exist. Use PATH"),
        (["--prompt-file", "two.jsonl"], "two.jsonl:1: image 'bad.png' + image 'bad.png' came for"),
        (["--prompt-file", "q.jsonl", "--image", "bad.png"], "Use the fields `image` and `inputs` of its"),
    ):
        code, streams = show(*words)
        assert code == 2
        assert said in streams.err
    code, streams = generate("--prompt", "a", "--image", seeing[1][0])
    assert code == 2
    assert "prompt:1: the image" in streams.err
    assert "for 'base', which has no conditioner" in streams.err


def test_several_images_of_a_prompt_are_averaged_if_asked(show, seeing):
    first, second = seeing[1]
    words = ["--prompt", "a", "--image", first, "--image", second]
    assert show(*words)[0] == 2
    code, streams = show(*words, "--several-images", "average")
    assert code == 0
    both = streams.out
    again = show("--prompt", "a", "--image", second, "--image", first, "--several-images", "average")
    assert again[1].out == both
    alone = [
        show("--prompt", "a", "--image", path, "--several-images", "average")[1].out for path in seeing[1]
    ]
    assert show("--prompt", "a", "--image", first)[1].out == alone[0]
    assert both not in alone


def test_a_chat_looks_at_an_image(seeing, monkeypatch, capsys):
    folder, (first, second) = seeing
    lines = ["Say", f"/image {second}", "Say", "/image none.png", "/image", "Say"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    words = ["--adapter", str(folder), "--max-new-tokens", "8", "--template", "chat"]
    assert main(["generate", *words, "--interactive", "--image", first]) == 0
    said = capsys.readouterr().out
    for more in (["--image", first], ["--image", second], []):
        assert main(["generate", *words, "--prompt", "Say", *more]) == 0
        assert capsys.readouterr().out in said
    assert "The image 'none.png' does not exist" in said
    assert "without an image" in said
