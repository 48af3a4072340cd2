"""`evaluate coco-caption`: captions against the references of COCO, Karpathy's split, or any other file."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from llama_adapter.evaluation.captions.coco import Captioned, read_references
from llama_adapter.evaluation.captions.scores import Tokenizer, score_captions
from llama_adapter.evaluation.question import Question
from llama_adapter.evaluation.question_media import MediaFinder, alone
from llama_adapter.evaluation.results import Row, Scores
from llama_adapter.evaluation.task import EvaluateConfig, run
from llama_adapter.evaluation.values import scalar_text

INSTRUCTION = "Generate caption of this image"
"""What LLaMA-Adapter V2 asks for a caption."""


@dataclass(kw_only=True)
class CaptionConfig(EvaluateConfig):
    """Captions: BLEU, ROUGE-L, CIDEr, and METEOR and SPICE where Java can run them."""

    references: str
    """captions_val2014.json, dataset_coco.json, or JSON with image ids and captions."""

    split: str | None = None
    """Part of a Karpathy file: train, restval, trainrestval, val or test."""

    images: str | None = None
    """Folder of the pictures, found by the names that the references have, or by their ids."""

    media_name: str | None = None
    """Name of a picture's file, made from its id, such as COCO_val2014_{image_id:012d}.jpg."""

    instruction: str = INSTRUCTION
    """What to ask for a caption."""

    tokenizer: Tokenizer = "python"
    """`python` needs nothing, `java` is pycocoevalcap's own (the same tokens), `none` cuts at spaces."""

    java_scores: bool = True
    """Compute METEOR and SPICE where Java and their files are there."""


@dataclass
class CocoCaption:
    """The task."""

    config: CaptionConfig
    """Its settings."""
    name: ClassVar[str] = "coco-caption"

    @cached_property
    def pictures(self) -> list[Captioned]:
        """The references."""
        config = self.config
        beside = Path(config.references).expanduser().parent
        finder = MediaFinder(config.images, beside, config.media_name)
        asked = config.predictions is None or config.questions is not None
        return config.limited(read_references(config.references, config.split, finder if asked else None))

    def questions(self) -> list[Question]:
        """The same instruction for every picture."""
        return [
            Question(
                item.id,
                self.config.instruction,
                image := alone(item.media),
                inputs=() if image else item.media,
                has_image=True,
                record=item.record,
            )
            for item in self.pictures
        ]

    def score(self, answers: Mapping[str, Any]) -> Scores:
        """All caption scores; a picture without a caption has an empty one."""
        said = {
            item.id: scalar_text(answers.get(item.id, ""), f"The caption of {item.id!r}")
            for item in self.pictures
        }
        references = {item.id: item.captions for item in self.pictures}
        found = score_captions(said, references, self.config.tokenizer, self.config.java_scores)
        items = [
            {"id": item.id, "caption": said[item.id], "references": item.captions}
            | {name: values[number] for name, values in found.each.items()}
            for number, item in enumerate(self.pictures)
        ]
        count = len(items)
        return Scores(
            task="COCO captions" if self.config.split is None else f"COCO captions, {self.config.split}",
            rows=[Row(name, value, count, digits=4) for name, value in found.corpus.items()],
            items=items,
            notes=[*found.notes, "Scores are from 0 to 1, CIDEr from 0 to 10; papers print them times 100."],
            settings={"tokenizer": self.config.tokenizer, "split": self.config.split},
        )


def coco_caption(config: CaptionConfig) -> int:
    """The `evaluate coco-caption` verb.

    Raises:
        UserError: the references or the captions cannot be used.
    """
    return run(CocoCaption(config), config)
