"""One adapted model that serves several threads at once."""

import threading

import pytest
import torch

from tests.adapters.matrix.subjects import SUBJECTS

PADDED = {
    "input_ids": torch.tensor([[0, 0, 5, 9], [3, 4, 5, 6]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1]] + [[1] * 4]),
}
SINGLE = {"input_ids": torch.tensor([[7, 8, 9]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}


@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2"])
def test_threads_generate_as_they_would_alone(model_type):
    subject = SUBJECTS[model_type]
    model = subject.adapt(subject.everything())
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    alone = [model.generate(**inputs, **options) for inputs in (PADDED, SINGLE)]
    found, start = {}, threading.Barrier(2)

    def generate(index, inputs):
        start.wait()
        found[index] = [model.generate(**inputs, **options) for _ in range(4)]

    threads = [threading.Thread(target=generate, args=job) for job in enumerate((PADDED, SINGLE))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, wanted in enumerate(alone):
        assert [torch.equal(got, wanted) for got in found[index]] == [True] * 4
