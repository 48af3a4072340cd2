"""Vectors of classes and ranks."""

import torch
from torch.nn import functional

from imagebind_llm.zero_shot.scoring import class_vector, rank_classes


def test_a_class_vector_is_the_mean_direction_and_keeps_the_length():
    prompts = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
    torch.testing.assert_close(class_vector(prompts), torch.full((2,), 3 / 2**0.5))
    torch.testing.assert_close(class_vector(prompts[:1]), prompts[0])


def test_probabilities_are_those_of_the_products_and_the_order_that_of_the_cosines():
    torch.manual_seed(0)
    records, classes = torch.randn(6, 4), torch.randn(3, 4)
    found = rank_classes(records, classes, [0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(found.probability, (records @ classes.T).softmax(-1))
    cosine = functional.normalize(records, dim=1) @ functional.normalize(classes, dim=1).T
    assert found.order[:, 0].tolist() == cosine.argmax(1).tolist()
    scaled = rank_classes(records * 7, classes, [0, 1, 2, 0, 1, 2])
    assert torch.equal(found.order, scaled.order)
    for row, (rank, label) in enumerate(zip(found.rank.tolist(), found.labels.tolist(), strict=True)):
        assert found.order[row, rank] == label
