"""Memory over time, against what is known to be alive."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from llama_adapter.planning.timeline import ACTIVATIONS, CASTS, LOGITS, WEIGHTS, WORKING, MemoryTimeline


def scenario():
    first = torch.ones(1000)
    second = torch.ones(2000)
    view = second[10:]
    del first, second
    third = torch.ones(500)
    return view, third


def test_a_storage_lives_until_the_last_view_is_gone():
    with MemoryTimeline(vocabulary=7) as timeline:
        kept = scenario()
    assert timeline.peak.total == 4 * 3000
    assert sum(timeline.now().values()) == 4 * 2500
    del kept
    assert timeline.now() == {}


def test_in_place_operators_and_views_take_nothing():
    with MemoryTimeline(vocabulary=7) as timeline:
        tensor = torch.ones(10, 10)
        tensor.add_(1).mul_(2).view(100).t()
    assert timeline.peak.total == 400


def test_parts_follow_phase_shape_and_origin():
    weight = torch.ones(3, 5)
    with MemoryTimeline(vocabulary=7) as timeline:
        timeline.place([weight], WEIGHTS)
        kept = [torch.ones(4, 5), torch.ones(4, 7), weight.bfloat16()]
        timeline.phase = "backward"
        kept.append(torch.ones(6))
        assert timeline.now() == {WEIGHTS: 60, ACTIVATIONS: 80, LOGITS: 112, CASTS: 30, WORKING: 24}
        timeline.place([kept[0]], WORKING)
        assert timeline.now(WORKING, LOGITS) == {LOGITS: 112, WORKING: 104}
    assert timeline.peak.phase == "backward"
    assert sum(timeline.peak.parts.values()) == timeline.peak.total


def test_a_new_start_forgets_the_peak():
    with MemoryTimeline(vocabulary=7) as timeline:
        torch.ones(1000)
        timeline.start()
        torch.ones(10)
    assert timeline.peak.total == 40


def test_equals_the_profiler_on_a_computation():
    def compute():
        hidden = torch.ones(50, 50, requires_grad=True)
        for _ in range(3):
            hidden = (hidden @ hidden).tanh() * 2
        hidden.sum().backward()

    with MemoryTimeline(vocabulary=7) as timeline:
        compute()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        compute()
    held = peak = 0
    records = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for record in sorted(records, key=lambda record: record.start_ns()):
        held += record.nbytes()
        peak = max(peak, held)
    assert abs(timeline.peak.total - peak) <= 0.01 * peak


def test_large_constants_and_fused_optimizers_need_no_content():
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with MemoryTimeline(vocabulary=7, fake=mode):
        large, small, numbers = torch.zeros(100, 100), torch.zeros(3), torch.arange(10_000)
        parameter = torch.nn.Parameter(mode.from_tensor(torch.ones(4)))
        parameter.grad = mode.from_tensor(torch.ones(4))
        torch.optim.AdamW([parameter], fused=True).step()
    assert type(large).__name__ == "FakeTensor"
    assert small.tolist() == [0, 0, 0]
    assert numbers[5].item() == 5
