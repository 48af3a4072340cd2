"""The bind network, alone and through a LLaMA, against what the original code computed."""

import pytest
import torch
from peft import get_peft_model

from imagebind_llm.bind import BindConfig, BindNetwork, our_name
from llama_adapter import UserError, ZeroInitConfig
from llama_adapter.conditioning import load_conditioner, save_conditioner
from llama_adapter.multimodal import ImageConditionedModel
from tests.adapters.official import LINEARS, base_model, rotated
from tests.imagebind_llm.tiny import golden, golden_llm

CASES = pytest.mark.parametrize("case", ["imagebind_llm", "imagebind_llm_legacy"])
BIASES = [name for name in LINEARS if name not in ("attention.wk", "attention.wv")]


def stripped(case):
    return {name.removeprefix("llama."): tensor for name, tensor in golden_llm(case).items()}


def adapter_parameters(tensors):
    """(our parameter name, official name, conversion of the official value) of every adapter tensor."""
    for layer in range(4):
        ours, theirs = f"base_model.model.model.layers.{layer}.", f"layers.{layer}."
        branch = f"{ours}self_attn.prompt_attention.zero_init"
        yield f"{branch}_prompt.default.value", "prefix_query.weight", lambda t, row=layer: t[row, None]
        yield f"{branch}_gate.default.value", f"{theirs}attention.gate", lambda t: t[0]
        for name, target in LINEARS.items():
            part, _, short = name.partition(".")
            if name in BIASES:
                bias = f"{theirs}{name}.bias"
                yield f"{ours}{target}.zero_init_bias.default.value", bias, lambda t, n=name: rotated(n, t)
            lora = f"{theirs}{part}.lora_{short}_l"
            yield f"{ours}{target}.zero_init_lora.default.down", f"{lora}1.weight", lambda t: t
            yield (
                f"{ours}{target}.zero_init_lora.default.up",
                f"{lora}2.weight",
                lambda t, n=name: rotated(n, t),
            )


def whole_model(tensors):
    """LLaMA, adapter and bind network of a golden file."""
    deltas = [{"kind": "bias", "exclude": ["k_proj", "v_proj"]}, {"kind": "lora", "rank": 4}]
    config = ZeroInitConfig(task_type="CAUSAL_LM", preset="imagebind", deltas=deltas)
    model = get_peft_model(base_model(tensors), config)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for ours, theirs, convert in adapter_parameters(tensors):
            parameters[ours].copy_(convert(tensors[theirs]))
    return ImageConditionedModel(model, BindNetwork.of_official(tensors))


@CASES
def test_the_network_alone(case):
    tensors = golden(case)
    network = BindNetwork.of_official(tensors)
    for given, wanted in [("mixed_before_cache", "bind_out_no_cache"), ("mixed_after_cache", "bind_out")]:
        found = network(tensors[f"golden.outputs.{given}"].unsqueeze(1))
        torch.testing.assert_close(found, tensors[f"golden.outputs.{wanted}"], atol=1e-5, rtol=0)


def test_logits_loss_and_gradients():
    tensors = stripped("imagebind_llm")
    model = whole_model(tensors)
    tokens, labels = tensors["golden.inputs.tokens"], tensors["golden.inputs.labels"][:, 1:].flatten()
    logits = model(tokens, features=tensors["golden.outputs.mixed_after_cache"].unsqueeze(1)).logits
    torch.testing.assert_close(logits, tensors["golden.outputs.logits"], atol=5e-5, rtol=0)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, ignore_index=0)
    torch.testing.assert_close(loss, tensors["golden.outputs.loss"], atol=1e-5, rtol=0)
    loss.backward()
    for found, wanted in gradients(model, golden("imagebind_llm")):
        torch.testing.assert_close(found, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def gradients(model, tensors):
    """(ours, the original's) of every adapter tensor, and of what is kept of the network's."""
    parameters = dict(model.language_model.named_parameters())
    for ours, theirs, convert in adapter_parameters(tensors):
        name = theirs if theirs in tensors else f"llama.{theirs}"
        yield parameters[ours].grad, convert(tensors[f"golden.grads.{name}"])
    for name, weight in tensors.items():
        if name.startswith("golden.grads.image_bind_"):
            ours = our_name(name.removeprefix("golden.grads."))
            yield model.conditioner.get_parameter(ours).grad, weight


def test_an_image_alone():
    tensors = stripped("imagebind_llm")
    features = tensors["golden.outputs.train_image_only.embedding"].unsqueeze(1)
    logits = whole_model(tensors)(tensors["golden.inputs.tokens"], features=features).logits
    torch.testing.assert_close(logits, tensors["golden.outputs.train_image_only.logits"], atol=5e-5, rtol=0)


@CASES
def test_a_batch_equals_its_records(case):
    tensors = stripped(case)
    model = whole_model(tensors)
    tokens, features = (
        tensors["golden.inputs.tokens"],
        tensors["golden.outputs.mixed_after_cache"].unsqueeze(1),
    )
    together = model(tokens, features=features).logits
    for row in range(2):
        alone = model(tokens[row, None], features=features[row, None]).logits
        torch.testing.assert_close(together[row, None], alone, atol=1e-5, rtol=0)


@CASES
def test_files(case, tmp_path):
    network = BindNetwork.of_official(golden(case))
    save_conditioner(network, tmp_path)
    again = load_conditioner(tmp_path)
    assert again.config == network.config
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_the_published_size():
    with torch.device("meta"):
        network = BindNetwork(BindConfig(hidden_size=4096))
    assert sum(parameter.numel() for parameter in network.parameters()) == (
        4096 * 1024 + 4096 + 3 * (4096 + 3 * 4096 * 16384)
    )


def test_files_without_a_whole_network():
    tensors = golden("imagebind_llm")
    with pytest.raises(UserError, match="no bind network among 1 tensors. Use"):
        BindNetwork.of_official({"a": torch.zeros(1)})
    del tensors["image_bind_f2_3.weight"]
    with pytest.raises(UserError, match="bind network does not fit: .*Use a complete file"):
        BindNetwork.of_official(tensors)
