"""Checks of how the model is run: compiled, in half precision, on flex attention."""

from collections.abc import Callable

import torch
from torch import nn

from tests.adapters.matrix.subjects import Subject, attach, relative_error, trainable
from tests.adapters.matrix.tiny_models import loss, output


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


def train_compiled(subject: Subject, backend: str, steps: int = 20) -> None:
    """One graph, no recompilation, the losses of an uncompiled run.

    Every kind of part takes part, but not in many places: tracing takes most of the time.
    """
    subject = subject.shallow()
    deltas = [delta | {"targets": ["attention"]} for delta in subject.deltas()]
    config = subject.everything(delta_layers=1, deltas=deltas)
    wanted = _train(subject.adapt(config), subject, lambda model: model, steps)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    got = _train(
        subject.adapt(config),
        subject,
        lambda model: torch.compile(model, backend=backend, fullgraph=True),
        steps,
    )
    torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), rtol=1e-3, atol=1e-5)
    assert wanted[-1] < wanted[0]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def _train(
    model: nn.Module, subject: Subject, prepare: Callable[[nn.Module], nn.Module], steps: int
) -> list[float]:
    runnable = prepare(model.train())
    optimizer = torch.optim.SGD(trainable(model).values(), lr=0.1)
    losses = []
    for _ in range(steps):
        value = loss(runnable, subject.inputs())
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses


def _cast(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in inputs.items()
    }
