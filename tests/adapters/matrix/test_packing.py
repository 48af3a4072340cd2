"""Packed records equal the same records alone: logits and the gradient of every adapter tensor.

Over every decoder of the matrix and every kernel it runs here; torch has no backward of flex attention on the
CPU. Tolerance: 1e-5 of the largest value (1e-4 of a single tensor's), fp32 sums in another order.
"""

import pytest
import torch

from llama_adapter.adapters.families import FAMILIES
from llama_adapter.data.collator import PackingCollator
from llama_adapter.errors import UserError
from llama_adapter.training.loss import LabelledPositions
from llama_adapter.training.packing import check_packing, packed_inputs
from tests.adapters.matrix.subjects import SUBJECTS, relative_error, trainable
from tests.adapters.matrix.tiny_models import DECODER, VOCABULARY

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning"),
    # transformers 5.23 calls torch 2.14 the old way
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
]

CPU = torch.device("cpu")
DECODERS = [subject for subject in SUBJECTS.values() if subject.kind == DECODER]
REFUSED = [s for s in DECODERS if FAMILIES[s.model_type].packing is not None]
# Falcon hands no positions to its masks in transformers 5.23: it is judged by what it does.
PACKABLE = [s for s in DECODERS if s not in REFUSED and s.model_type != "falcon"]


def kernels(subject):
    flex = ("flex_attention",) if subject.base()._supports_flex_attn else ()
    return (*subject.implementations, *flex)


CASES = [pytest.param(s, key, id=f"{s.model_type}-{key}") for s in PACKABLE for key in kernels(s)]


def records(lengths=(7, 1, 12, 9)):
    """Records longer and shorter than the tiny sliding windows (5), one of a single token."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    return [{"input_ids": ids, "labels": ids, "record_id": f"f:{at}"} for at, ids in enumerate(drawn)]


def forward(model, batch):
    kept = {name: batch[name] for name in ("input_ids", "position_ids")}
    return model(**kept, **packed_inputs(batch)).logits


def loss(model, batch):
    """Summed loss over all labels, with which records add up."""
    positions = LabelledPositions(batch["labels"])
    return positions.losses(forward(model, batch)).sum()


@pytest.mark.parametrize(("subject", "kernel"), CASES)
@torch.compiler.set_stance("force_eager")  # flex attention's unfused kernel: its mask is what is checked
def test_packed_equals_alone(subject, kernel):
    collate, rows = PackingCollator(), records()
    model = subject.adapt(subject.everything(), kernel)
    with torch.no_grad():
        alone = torch.cat([forward(model, collate([row])) for row in rows], dim=1)
        packed = forward(model, collate(rows))
    assert relative_error(packed, alone) < 1e-5
    if kernel == "flex_attention":
        return
    gradients = []
    for batches in ([collate(rows)], [collate([row]) for row in rows]):
        model.zero_grad(set_to_none=True)
        for batch in batches:
            loss(model, batch).backward()
        gradients.append({name: p.grad.clone() for name, p in trainable(model).items()})
    largest = max(gradient.abs().max() for gradient in gradients[1].values())
    for name, wanted in gradients[1].items():
        # a tensor that structurally gets none is compared with the others
        bound = max(1e-4 * wanted.abs().max(), 1e-6 * largest)
        assert (gradients[0][name] - wanted).abs().max() <= min(bound, 1e-5 * largest), name


@pytest.mark.parametrize("subject", PACKABLE, ids=lambda subject: subject.model_type)
def test_the_check_passes_models_that_keep_records_apart(subject):
    model = subject.adapt(subject.prompts()).train()
    state = torch.get_rng_state()
    check_packing(model, CPU)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("subject", REFUSED, ids=lambda subject: subject.model_type)
def test_models_known_to_mix_records_are_refused(subject):
    with pytest.raises(UserError, match=r"cannot be trained with batching='packed': its positions \(ALiBi\)"):
        check_packing(subject.adapt(subject.prompts()), CPU)


def test_the_table_is_right_about_the_models_it_refuses():
    """They take no positions; when that changes they leave the table."""
    assert [s for s in DECODERS if not s.takes_positions] == REFUSED
