"""The presets of models that see, from the command line, on a thin model."""

import pytest

from llama_adapter.errors import UserError

pytest.importorskip("open_clip", reason="open_clip is not installed: pip install 'llama-adapter[vision]'")


@pytest.mark.slow
def test_every_preset_takes_its_steps(example, tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = example("reduced_7b")
    reduced = module.Reduced(
        tokenizer=str(tiny_base), hidden_size=128, encoder="ViT-B-32-quickgelu", dtype="float32"
    )
    module.main(reduced)
    found = module.json.loads((reduced.output_dir / "results.json").read_text())
    assert tuple(found) == module.PRESETS
    for name, row in found.items():
        assert len(row["losses"]) >= 2, name
        assert all(0 < loss < 20 for loss in row["losses"]), name
        assert row["adapter_bytes"] > 0, name


def test_data_lie_where_the_presets_look_for_them(example, tmp_path):
    module = example("reduced_7b")
    module.write_data(tmp_path / "data")
    for name in module.PRESETS:
        text = (module.EXAMPLES / f"{name}.yaml").read_text()
        for path in (word.strip("{},") for word in text.split() if word.strip("{},").startswith("data/")):
            assert (tmp_path / path).exists(), f"{name} names {path}"


def test_an_unknown_preset_is_named(example):
    with pytest.raises(UserError, match="presets names 'v3'"):
        example("reduced_7b").Reduced(presets=["v3"])
