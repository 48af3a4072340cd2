"""What the planner says is what the trainer takes, in processes of their own."""

import pytest

from benchmarks.planner_truth import CASES, Case, as_table, compare, main, write_base

SMALL = Case(method="v1", rows=3, tokens=64, settings={"checkpointing": "mlp"})


def check(found):
    assert abs(found.memory_error) < 0.1, found
    assert abs(found.flops_error) < 0.02, found
    assert found.resident_set_error is None or abs(found.resident_set_error) < 0.1, found


def test_a_small_run_takes_what_was_predicted(tmp_path):
    check(compare(SMALL, write_base(tmp_path / "base", layers=3)))  # v1 leaves out the first two


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_run_takes_what_was_predicted(case, tmp_path):
    found = compare(case, write_base(tmp_path / "base", layers=6))
    check(found)
    assert as_table([found]).row_count == 1


def test_cases_cover_methods_lengths_checkpointing_precision_and_accumulation():
    assert {case.method for case in CASES} == {"v1", "v2", "lora"}
    assert len({case.tokens for case in CASES}) >= 4
    assert {case.dtype for case in CASES} == {"fp32", "bf16"}
    used = {name for case in CASES for name in case.settings}
    assert {"checkpointing", "bf16", "gradient_accumulation_steps"} <= used


def test_without_a_gpu_the_gpu_check_says_so(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--gpu"]) == 0
    assert "nothing was compared" in capsys.readouterr().out
