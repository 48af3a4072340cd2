"""Files of every modality from the command line, and files that cannot be used."""

import io
import json
import shutil
import struct
import zlib

import av
import numpy as np
import pytest
from PIL import Image

from llama_adapter.cli import main
from tests.imagebind_llm.bind_runs import write_sound

pytest.importorskip("soundfile", reason="soundfile is not installed: pip install 'llama-adapter[audio]'")
WORDS = ["--max-new-tokens", "3"]


@pytest.fixture
def answer(trained, capsys, tmp_path, monkeypatch):
    """Answers records of a prompt file with the second stage's adapter."""
    monkeypatch.chdir(tmp_path)

    def run(records, *words):
        (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
        files = ["--prompt-file", "q.jsonl", "--output", "a.jsonl"]
        code = main(["generate", "--adapter", str(trained / "second" / "adapter"), *WORDS, *files, *words])
        error = capsys.readouterr().err
        assert code == 0, error
        return [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]

    return run


def chat(trained, monkeypatch, capsys, lines):
    """What a chat writes, line by line."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    words = ["--adapter", str(trained / "second" / "adapter"), *WORDS, "--interactive"]
    assert main(["generate", *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_files_of_every_modality(answer, shared_data, tmp_path):
    np.savetxt(tmp_path / "walk.csv", np.random.default_rng(0).normal(size=(2000, 6)), delimiter=",")
    pictures, sounds = shared_data / "images" / "imagebind", shared_data / "audio"
    Image.open(sorted(pictures.glob("*.jpg"))[1]).convert("L").save(tmp_path / "heat.png")
    files = {
        "image": sorted(pictures.glob("*.jpg"))[0],
        "video": shared_data / "video" / "2.avi",
        "audio": sounds / "llamafactory" / "3.flac",
        "depth": shared_data / "depth_stereo" / "motorcycle_disp.npz",
        "thermal": tmp_path / "heat.png",
        "imu": tmp_path / "walk.csv",
        "point": shared_data / "pointcloud" / "car.npy",
    }
    inputs = {name: f"{path}:0.5" for name, path in files.items()} | {"text": "a walk:-0.25"}
    records = [{"prompt": "Say", "inputs": {name: one}} for name, one in inputs.items() if name != "text"]
    records += [{"prompt": "Say", "inputs": inputs}, {"prompt": "Say"}]
    rows = answer(records, "--mixing", "unit")
    assert len(rows) == len(files) + 2
    assert all(f"{name} " in rows[-2]["image"] for name in inputs)
    assert "image" not in rows[-1]


def test_the_same_sound_in_other_files(answer, trained, shared_data):
    """A batch of sounds of several lengths, types and rates."""
    folder = shared_data / "audio"
    found = [*sorted((folder / "imagebind").iterdir()), *sorted((folder / "fsdd").iterdir())[:2]]
    sounds = [str(path) for path in found if path.suffix in (".wav", ".flac", ".mp3")]
    assert len(answer([{"prompt": "Say", "inputs": {"audio": path}} for path in sounds])) == len(sounds) > 3


def test_media_by_other_names_are_the_same_media(answer, trained, shared_data, tmp_path):
    shutil.copy(trained / "tone.wav", tmp_path / "tone.wav")
    shutil.copy(sorted((shared_data / "images" / "imagebind").glob("*.jpg"))[0], tmp_path / "a.jpg")
    part = [{"type": "image", "path": "a.jpg"}, {"type": "text", "text": "Say"}]
    sounds = [
        {"prompt": "Say", "inputs": {"audio": "tone.wav"}},
        {"prompt": "Say", "audio": "tone.wav"},
        {"messages": [{"role": "user", "content": "<audio>Say"}], "audios": ["tone.wav"]},
    ]
    pictures = [
        {"prompt": "Say", "image": "a.jpg"},
        {"prompt": "Say", "image_path": "a.jpg"},
        {"messages": [{"role": "user", "content": part}]},
    ]
    rows = answer([*sounds, *pictures])
    assert [row["image"] for row in rows] == ["audio 'tone.wav'"] * 3 + ["a.jpg"] * 3
    assert len({row["answer"] for row in rows[:3]}) == len({row["answer"] for row in rows[3:]}) == 1
    assert {row["prompt"] for row in rows} <= {"Say", "<image>Say"}


def test_names_with_colons(answer, trained, tmp_path):
    for name in ("take:0.5", "a:b.wav"):  # the first one's whole name is a file, so it has no weight
        shutil.copy(trained / "tone.wav", tmp_path / name)
    rows = answer([{"prompt": "Say", "inputs": {"audio": ["take:0.5", "a:b.wav:-2"]}}])
    assert rows[0]["image"] == "audio 'take:0.5' + audio 'a:b.wav' x -2"


def test_files_that_cannot_be_used_are_said_and_the_chat_goes_on(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_broken(tmp_path)
    lines = {
        "/image bad.png": "'bad.png' cannot be read as an image",
        "/image bomb.png": "'bomb.png' cannot be read as an image: Image size (900000000 pixels) exceeds",
        "/audio silent.wav": "'silent.wav' is silent",
        "/audio empty.wav": "'empty.wav' has 0.000 s of sound. Use at least",
        "/video sound.mp4": "'sound.mp4' has no video stream",
        "/point nan.npy": "'nan.npy' holds NaN or infinite coordinates in 1 points",
        "/imu nan.csv": "'nan.csv' holds NaN or infinite values",
        "/depth bad.png": "'bad.png' cannot be read as an image",
        "/audio none.wav": "The audio 'none.wav' does not exist",
        "/with smell a": "'smell' is no modality. Use /with and one of image,",
        "/smell a": "'/smell' is not a command",
        "/text a dog:0": "add up to 0",
        "/text a dog:-1": "The conversation starts anew, about text 'a dog' x -1",
        "/with text a dog:1": "add up to 0",
        "/with text a cat:0.5": "about text 'a dog' x -1 + text 'a cat' x 0.5",
        "What is it?": "",
    }
    written = chat(trained, monkeypatch, capsys, list(lines))
    for line, said in lines.items():
        assert said in written, f"{line}: {written}"


def test_a_record_of_an_unknown_modality(trained, tmp_path, capsys):
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "inputs": {"smell": "a"}}')
    words = ["--adapter", str(trained / "second" / "adapter"), "--prompt-file", str(tmp_path / "q.jsonl")]
    assert main(["generate", *words]) == 2
    assert "q.jsonl:1: inputs is {'smell': 'a'}. Use files or texts under some of" in capsys.readouterr().err


def write_broken(folder):
    """Files of every modality that are none."""
    (folder / "bad.png").write_bytes(b"\x89PNG no")
    write_bomb(folder / "bomb.png", 30000)
    write_sound(folder / "silent.wav", frequency=0.0)
    write_sound(folder / "empty.wav", seconds=0)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    points = np.ones((50, 3), np.float32)
    points[7, 1] = np.nan
    np.save(folder / "nan.npy", points)
    np.savetxt(folder / "nan.csv", np.full((300, 6), np.nan), delimiter=",")


def write_bomb(path, size):
    """A small file that says it is a huge picture."""

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))


def test_evaluation_shows_sounds_and_mixes(trained, tmp_path, monkeypatch, capsys):
    """As `generate` answers the same inputs; a file that is not there is said before anything is loaded."""
    monkeypatch.chdir(tmp_path)
    sound, picture = trained / "tone.wav", sorted((trained / "pictures").iterdir())[0]
    rows = [
        {"id": 1, "question": "Say", "answer": "x", "audio": str(sound)},
        {"id": 2, "question": "Say", "answer": "x", "images": [str(picture)], "audios": [str(sound)]},
        {"id": 3, "question": "Say", "answer": "x", "inputs": {"image": f"{picture}:0.5"}},
    ]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    adapter = ["--adapter", str(trained / "second" / "adapter"), *WORDS]
    words = ["evaluate", "choice", "--references", "r.json", "--suffix", "", *adapter]
    assert main([*words, "--output", "s.json"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 questions were asked with their picture or other input." in printed
    items = [json.loads(line) for line in (tmp_path / "s.items.jsonl").read_text().splitlines()]
    assert [str(sound) in item["shown"] for item in items] == [True, True, False]
    asked = ["evaluate", "choice", "--references", "r.json", "--suffix", "", "--questions", "q.jsonl"]
    assert main(asked) == 0
    assert main(["generate", *adapter, "--prompt-file", "q.jsonl", "--output", "a.jsonl"]) == 0
    answers = [json.loads(line)["answer"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert answers == [item["answer"] for item in items]
    (tmp_path / "r.json").write_text(json.dumps([rows[0] | {"audio": "lost.wav"}]))
    capsys.readouterr()
    assert main(words) == 2
    assert "The pictures of 1 of 1 questions are no files here: '1'." in capsys.readouterr().err
