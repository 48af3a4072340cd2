from hypothesis import given
from hypothesis import strategies as st

from llama_adapter.data.encoding import IGNORE, Encoded
from llama_adapter.data.overlong import answers_that_fit, cut_middles, cuttable_ranges, shares


def letters(count):
    """One token per character."""
    return Encoded(list(range(count)), [(i, i + 1) for i in range(count)])


@given(lengths=st.lists(st.integers(0, 50), max_size=6), data=st.data())
def test_shares_use_the_whole_budget_and_take_from_the_longest(lengths, data):
    budget = data.draw(st.integers(0, sum(lengths)))
    kept = shares(lengths, budget)
    assert sum(kept) == budget
    assert all(0 <= keep <= length for keep, length in zip(kept, lengths, strict=True))
    ceiling = max((k for k, length in zip(kept, lengths, strict=True) if k < length), default=None)
    if ceiling is not None:  # whoever was cut keeps at least as much as anybody, but for one token
        cut = [k for k, length in zip(kept, lengths, strict=True) if k < length]
        assert max(kept) - min(cut) <= 1


def test_a_short_part_survives_beside_a_long_one():
    assert shares([5, 100], 50) == [5, 45]


def test_only_content_without_loss_and_without_placeholder_may_go():
    labels = [IGNORE] * 8 + [8, 9]
    assert cuttable_ranges(letters(10), labels, [(1, 3), (4, 10)], [(5, 6)]) == [(1, 3), (4, 5), (6, 8)]


def test_a_token_that_also_covers_template_text_stays():
    encoded = Encoded([0, 1, 2, 3], [(0, 3), (3, 5), (5, 7), (7, 9)])
    assert cuttable_ranges(encoded, [IGNORE] * 4, [(2, 8)], []) == [(1, 3)]


def test_neighbouring_contents_are_cut_apart():
    assert cuttable_ranges(letters(6), [IGNORE] * 6, [(0, 3), (3, 6)], []) == [(0, 3), (3, 6)]


@given(size=st.integers(1, 40), data=st.data())
def test_the_middle_goes_and_both_ends_stay(size, data):
    excess = data.draw(st.integers(0, size))
    kept = cut_middles(letters(size + 2), [(1, size + 1)], excess)
    gone = [token for token in range(size + 2) if token not in kept]
    assert len(gone) == excess
    assert gone == list(range(gone[0], gone[-1] + 1)) if gone else True
    left, right = (gone[0] - 1, size - gone[-1]) if gone else (0, 0)
    assert 0 <= left - right <= 1


def test_more_than_there_is_cannot_go():
    assert cut_middles(letters(5), [(1, 3)], 3) is None
    assert cut_middles(letters(5), [], 1) is None


def test_a_character_of_several_tokens_goes_or_stays_whole():
    offsets = [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3), (3, 4), (3, 4), (4, 5)]
    kept = cut_middles(Encoded(list(range(8)), offsets), [(0, 8)], 2)
    for group in ({1, 2, 3}, {5, 6}):
        assert group <= set(kept) or not group & set(kept)
    assert len(kept) <= 6


def test_answers_are_counted_while_they_fit():
    encoded = letters(20)
    answers, ranges = [(4, 8), (10, 14), (16, 20)], [(0, 4), (8, 10), (14, 16)]
    fits = [answers_that_fit(encoded, answers, ranges, limit) for limit in (3, 4, 7, 8, 12)]
    assert fits == [0, 1, 1, 2, 3]
