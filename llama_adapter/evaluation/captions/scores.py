"""BLEU-1 to 4, ROUGE-L and CIDEr by pycocoevalcap's own scorers, METEOR and SPICE where Java can run them.

Scores are those of the package, from 0 to 1 and CIDEr from 0 to 10; papers print them times 100. Unusual: the
tokeniser is this package's own, so no Java is needed. CIDEr weighs words by the references of all images, so
a score of a part of the data is another number. It does not know files.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llama_adapter.errors import UserError
from llama_adapter.evaluation.captions.java import package_folder, tokenize_with_java, why_not
from llama_adapter.evaluation.captions.ptb import tokenize_all

Tokenizer = Literal["python", "java", "none"]
"""Who cuts captions into tokens; `none` takes them as they are, cut at spaces."""


@dataclass(frozen=True)
class CaptionScores:
    """What the scorers gave."""

    corpus: dict[str, float]
    """Name -> score over all images."""
    each: dict[str, list[float]]
    """Name -> score of every image, in the order of the ids."""
    notes: list[str]
    """Which scores were left out, and why."""


def score_captions(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenizer: Tokenizer = "python",
    java_scores: bool = True,
) -> CaptionScores:
    """Scores one caption per image.

    Args:
        candidates: image id -> caption.
        references: image id -> one or more captions, for the same ids.
        tokenizer: who makes the tokens.
        java_scores: whether METEOR and SPICE are wanted where they can run.

    Raises:
        UserError: the ids differ, pycocoevalcap is missing, or Java fails.
    """
    if set(candidates) != set(references):
        differing = sorted(set(candidates) ^ set(references))
        raise UserError(f"Candidates and references differ in {differing[:8]}. Use the same ids.")
    package_folder()
    ids = list(references)
    spoken = {name: [candidates[name]] for name in ids}
    tokens = (
        tokenized(spoken, tokenizer),
        tokenized({name: list(references[name]) for name in ids}, tokenizer),
    )
    corpus: dict[str, float] = {}
    each: dict[str, list[float]] = {}
    notes: list[str] = []
    for name, scorer in _scorers(java_scores, notes):
        total, single = scorer(tokens[1], tokens[0])
        for label, value, values in zip(*_per_score(name, total, single), strict=True):
            corpus[label] = float(value)
            each[label] = [_one(item) for item in values]
    if len(ids) == 1:
        notes.append("CIDEr is 0 for a single image: it weighs words by how many images use them.")
    return CaptionScores(corpus, each, notes)


def tokenized(captions: Mapping[str, Sequence[str]], tokenizer: Tokenizer) -> dict[str, list[str]]:
    """Captions as tokens joined by spaces.

    Args:
        captions: image id -> captions.
        tokenizer: who makes the tokens.
    """
    texts = [text for said in captions.values() for text in said]
    if tokenizer == "none":
        rows = iter(" ".join(text.split()) for text in texts)
    else:
        cut: Callable[[Sequence[str]], list[list[str]]] = (
            tokenize_all if tokenizer == "python" else tokenize_with_java
        )
        rows = iter(" ".join(tokens) for tokens in cut(texts))
    return {name: [next(rows) for _ in said] for name, said in captions.items()}


def _scorers(java_scores: bool, notes: list[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and function of every score that can be computed; the others are noted."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu = Bleu(4)
    yield "BLEU", lambda references, candidates: bleu.compute_score(references, candidates, verbose=0)
    yield "ROUGE-L", Rouge().compute_score
    yield "CIDEr", Cider().compute_score
    for name in ("METEOR", "SPICE") if java_scores else ():
        if reason := why_not(name):
            notes.append(reason)
        else:
            yield name, _java_scorer(name)


def _java_scorer(name: str) -> Callable[..., Any]:
    """The package's METEOR or SPICE."""
    if name == "METEOR":
        return _meteor
    from pycocoevalcap.spice.spice import Spice

    return Spice().compute_score


def _meteor(references: dict[str, list[str]], candidates: dict[str, list[str]]) -> Any:
    """METEOR; its Java process and the pipes to it are closed, which the package leaves to chance."""
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        return scorer.compute_score(references, candidates)
    finally:
        process = scorer.meteor_p
        process.kill()
        process.communicate()


def _per_score(name: str, total: Any, single: Any) -> tuple[list[str], list[Any], list[Any]]:
    """Labels, totals and per-image scores; BLEU gives four of each."""
    if name != "BLEU":
        return [name], [total], [single]
    return [f"BLEU-{order}" for order in range(1, 5)], list(total), list(single)


def _one(value: Any) -> float:
    """One image's score; SPICE gives a table of which `All` counts."""
    return float(value["All"]["f"]) if isinstance(value, dict) else float(value)
