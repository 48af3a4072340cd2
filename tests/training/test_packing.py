"""What the check of packed batches lets pass and refuses; that packing is exact is tested
per model and kernel in tests/adapters/matrix."""

import pytest
import torch
import transformers
from peft import PromptTuningConfig, get_peft_model

from llama_adapter.data.collator import PackingCollator
from llama_adapter.errors import UserError
from llama_adapter.training.packing import check_packing, packed_inputs
from tests.adapters.matrix.subjects import SUBJECTS, attention_function, relative_error
from tests.adapters.matrix.test_packing import CPU, forward, records


@torch.no_grad()
def test_a_model_outside_the_table_is_judged_by_what_it_does():
    subject, collate, rows = SUBJECTS["falcon"], PackingCollator(), records()
    model = subject.adapt(subject.everything())
    alone = torch.cat([forward(model, collate([row])) for row in rows], dim=1)
    if relative_error(forward(model, collate(rows)), alone) < 1e-5:
        check_packing(model, CPU)
    else:
        with pytest.raises(UserError, match="'falcon'.* mixes packed records.* Set batching=tokens"):
            check_packing(model, CPU)


@torch.no_grad()
def test_a_kernel_that_no_mask_is_made_for_is_found_out():
    model = SUBJECTS["llama"].adapt(SUBJECTS["llama"].prompts())
    sdpa = transformers.AttentionInterface()["sdpa"]
    message = r"'llama'.*='maskless' mixes packed records: .* differ by 0\.\d"
    with (
        attention_function(model.base_model.model, "maskless", sdpa),
        pytest.raises(UserError, match=message),
    ):
        check_packing(model, CPU)


def test_with_a_cache_records_would_see_each_other():
    """Why packed batches are run without: positions that start again are taken for a continued generation."""
    model, batch = SUBJECTS["llama"].base(), PackingCollator()(records())
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    apart, mixed = (model(**inputs, use_cache=cached).logits for cached in (False, True))
    assert torch.equal(forward(model, batch), apart)
    assert relative_error(mixed, apart) > 0.1


def test_weights_elsewhere_are_not_probed(caplog):
    model = SUBJECTS["llama"].base()
    check_packing(model.to("meta"), CPU)
    assert "Not all weights are on cpu, so packing was not probed" in caplog.text


def test_prompts_that_peft_puts_before_rows_are_refused():
    model = SUBJECTS["llama"].base()
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(UserError, match="PROMPT_TUNING.* puts its tokens before each row, not before each"):
        check_packing(get_peft_model(model, config), CPU)


def test_half_precision_passes_and_still_finds_a_mix():
    subject = SUBJECTS["llama"]
    model = subject.adapt(subject.prompts()).to(torch.bfloat16)
    check_packing(model, CPU)
    sdpa = transformers.AttentionInterface()["sdpa"]
    with (
        attention_function(model.base_model.model, "maskless", sdpa),
        pytest.raises(UserError, match="mixes packed records"),
    ):
        check_packing(model, CPU)


def test_other_batches_get_no_argument_more():
    assert packed_inputs({"input_ids": 1}) == {}
    assert packed_inputs(PackingCollator()(records())) == {"use_cache": False}
