"""Checks of how the model is run: compiled, in half precision, on flex attention."""

import torch

from tests.adapters.matrix.subjects import Subject, attach, relative_error, trainable
from tests.adapters.matrix.tiny_models import loss, output


def compiled_training_never_recompiles(subject: Subject) -> None:
    _train_compiled(subject, "aot_eager", steps=20)


def inductor_training_never_recompiles(subject: Subject) -> None:
    _train_compiled(subject, "inductor", steps=20)


@torch.no_grad()
def half_precision_stays_close(subject: Subject) -> None:
    inputs = subject.inputs()
    wanted = output(subject.adapt(subject.everything()), inputs)
    half = subject.adapt(subject.everything()).to(torch.bfloat16)
    mixed = attach(subject.base().to(torch.bfloat16), subject.everything()).eval()
    tensors = trainable(mixed)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    for name, tensor in trainable(subject.adapt(subject.everything())).items():
        tensors[name].copy_(tensor)
    for model in (half, mixed):
        got = output(model, _cast(inputs))
        assert got.dtype == torch.bfloat16
        assert got.isfinite().all()
        error = (got.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert error < 0.08


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # the unfused kernel: what is checked is what goes into it
def flex_attention_agrees(subject: Subject) -> None:
    inputs = subject.inputs()
    wanted = output(subject.adapt(subject.everything()), inputs)
    flex = subject.adapt(subject.everything(), "flex_attention")
    assert relative_error(output(flex, inputs), wanted) < 1e-4
    base = subject.base("flex_attention")
    new = subject.adapt(subject.prompts(), "flex_attention", noise=0)
    assert torch.equal(output(new, inputs), output(base, inputs))


def _train_compiled(subject: Subject, backend: str, steps: int) -> None:
    # Every kind of part, but not in every layer: tracing takes most of the time.
    model = subject.adapt(subject.everything(prompt_layers=2, delta_layers=1)).train()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    inputs = subject.inputs()
    wanted = loss(model, inputs).item()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    optimizer = torch.optim.SGD(trainable(model).values(), lr=0.1)
    losses = []
    for step in range(steps):
        value = loss(compiled, inputs)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
        if step == 0:
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert abs(losses[0] - wanted) < 1e-4 * abs(wanted) + 1e-6
    assert losses[-1] < losses[0]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs == 1


def _cast(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in inputs.items()
    }
