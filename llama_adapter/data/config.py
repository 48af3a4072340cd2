"""Settings of the data part: where records come from and how they become token sequences.

Plain documented dataclasses, so that the command line can print them; a value that cannot work is refused on
construction. Nothing is opened or looked up here.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from llama_adapter.errors import UserError
from llama_adapter.limits import Seed


def parse_rows(rows: str | None) -> tuple[int, int | None]:
    """Turn ``"start:stop"`` into two numbers.

    Args:
        rows: a slice such as ``"0:800"``, ``":800"`` or ``"800:"``; None means everything.

    Returns:
        Start and stop, the latter None when open.

    Raises:
        UserError: the text is not such a slice, or selects nothing.
    """
    if rows is None:
        return 0, None
    match = re.fullmatch(r"(\d*):(\d*)", rows.strip())
    if not match:
        raise UserError(f"rows is {rows!r}. Use 'start:stop', for example '0:800', ':800' or '800:'.")
    start, stop = int(match[1] or 0), int(match[2]) if match[2] else None
    if stop is not None and stop <= start:
        raise UserError(f"rows is {rows!r}, which selects nothing. Use a stop larger than the start.")
    return start, stop


@dataclass(kw_only=True)
class JoinConfig:
    """A second file with more about the same records, as VQA's annotations are beside its questions."""

    path: str
    """A file, as ``SourceConfig.path``."""
    column: str
    """The column by which records belong together, such as question_id."""
    records: str | None = None
    """As ``SourceConfig.records``."""


@dataclass(kw_only=True)
class TaskConfig:
    """A task type whose records become an instruction and an answer, boxes and points in words included."""

    name: str
    """vqa, caption, region, grounding, ocr, layout, pose, detection or text: see docs/sphinx-data.md."""
    boxes: Literal["pixels", "pixels_xywh", "picture", "square"] = "pixels"
    """What numbers in the records are: pixels (of boxes left, top, right, bottom; or left, top, width,
    height), shares of the picture, or already shares of the padded square, which the model is taught."""
    padding: Literal["centred", "end"] = "centred"
    """Where the model's padding leaves a picture in its square: in the middle, or at the left and top."""
    grid: str = "1x1"
    """Rows and columns of the model's sub-images; the square is another one only where they differ."""
    instructions: str | None = None
    """YAML file with instructions of your own, name: list of texts; else those of the package."""


@dataclass(kw_only=True)
class SourceConfig:
    """One file, folder or hub data set."""

    path: str
    """A JSON, JSONL, Parquet, CSV or TSV file, a folder of such files, a folder written by ``save_to_disk``,
    or the name of a data set on the hub such as ``tatsu-lab/alpaca``. A YAML file with a list META is one of
    LLaMA2-Accessory: its files become sources that share the other settings."""
    format: str = "auto"
    """How one record is laid out: alpaca, sharegpt, llava, messages, prompt_completion, captions, karpathy,
    scienceqa, vqa, accessory; auto looks at the columns."""
    task: TaskConfig | None = None
    """The task type of its records, which then says how they are laid out, in place of ``format``."""
    type: str | None = None
    """What its records count as with ``training.types``; left out, the task's name, or none."""
    split: str = "train"
    """Which split of a hub or saved data set to read; plain files have none."""
    subset: str | None = None
    """Which configuration of a hub data set to read, for those that have several."""
    weight: float | None = None
    """Share of this source in a mixture, relative to the other weights. Give it for all sources or for none;
    with none every record occurs exactly once an epoch."""
    ratio: float | None = None
    """Use a random part of each file's records, below 1, drawn as LLaMA2-Accessory draws it."""
    rows: str | None = None
    """Which records to use, as ``start:stop`` counted from 0 over the whole source, after ``only``."""
    container: str | None = None
    """Read files as if their names ended so, such as ``.tsv``."""
    records: str | None = None
    """In a JSON file that is one object: the key of its records, or ``*`` if its values are the records."""
    only: dict[str, list[str]] = field(default_factory=dict)
    """Use only records that have one of these values in a column, for example ``{split: [train]}``."""
    each: str | None = None
    """A column with a list: make a record of each of its entries, such as one per caption of a picture."""
    join: JoinConfig | None = None
    """Another file that has more columns of the same records."""
    media_name: str | None = None
    """How an image is called where records have its number only: ``COCO_train2014_{image_id:012d}.jpg``. Not
    used for records that name an image themselves."""
    marks: Literal["media", "text"] = "media"
    """What ``<image>``, ``<audio>`` and ``<video>`` are in a record that names no media: a mistake, which is
    reported, or words of its text."""
    ignore: list[str] = field(default_factory=list)
    """Keys that are knowingly not read, such as ``label`` or ``messages.score``: nothing is said of them."""
    media_folder: str | None = None
    """Folder in which relative paths of images are looked up; left out, where the program was started."""
    columns: dict[str, str] = field(default_factory=dict)
    """Other names for columns, those of media included, as ``expected: yours``, for example ``{instruction:
    question, output: answer, image: screenshot}``."""
    streaming: bool = False
    """Read while training, without writing a cache: for data that do not fit on the disk or take too long to
    prepare."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work."""
        parse_rows(self.rows)
        if self.weight is not None and not self.weight > 0:
            raise UserError(
                f"weight is {self.weight} for {self.path!r}. Use a positive number, or leave the source out."
            )
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise UserError(f"ratio is {self.ratio} for {self.path!r}. Use a share above 0, up to 1.")
        if self.task is not None and self.format != "auto":
            raise UserError(
                f"format is {self.format!r} and task {self.task.name!r} for {self.path!r}. Use one of them: "
                "a task says how its records are laid out."
            )

    @property
    def batch_type(self) -> str:
        """What its records count as."""
        return self.type or (self.task.name if self.task else "")


@dataclass(kw_only=True)
class DataConfig:
    """What to train and evaluate on, and how text becomes tokens."""

    train: list[SourceConfig]
    """The sources to train on."""
    evaluation: list[SourceConfig] = field(default_factory=list)
    """The sources to evaluate on, one after the other; weights do not apply to them."""
    template: str = "chat"
    """How turns become text: chat (the tokenizer's own chat template), alpaca (the published prompts), plain
    (as it is), or a file NAME.jinja with a chat template."""
    rewritten_turns: Literal["split", "last"] = "split"
    """What happens to a conversation whose earlier answers the chat template writes differently once more
    turns follow, without their thoughts or with another end token: split makes an example of each such
    answer, of the conversation up to it; last trains on the answers that stand in the whole conversation as
    they are asked for."""
    max_length: int = 512
    """Longest sequence in tokens."""
    overlong: Literal["truncate", "drop"] = "truncate"
    """What happens to longer records: truncate takes tokens out of the middle of the prompt, drop leaves the
    record out."""
    bad_records: Literal["error", "skip"] = "error"
    """What happens when a record cannot be used: error stops and names the first ones, skip leaves them out
    and counts them."""
    media: Literal["refuse", "ignore", "keep", "attach"] = "refuse"
    """What happens to records with images: refuse stops, ignore trains on their text alone, keep hands the
    paths on and leaves the placeholders in the text, attach hands the paths on and takes the placeholders
    out, or its own token in their place if the model has images in the text. Training of a model that sees
    attaches."""
    images: Literal["cached", "live"] = "cached"
    """How a conditioner gets its images: as features that are computed once and kept on disk, or encoded
    anew whenever they are used."""
    feature_cache: str | None = None
    """Folder for the kept features, shared by all runs and encoders; the default is ``image_features`` in
    ``cache_dir``."""
    stopping: Literal["all_exhausted", "first_exhausted"] = "all_exhausted"
    """When a weighted mixture ends: after every source was seen whole (small ones repeat), or with the first
    used up."""
    shuffle_buffer: int = 1000
    """How many rows a streamed training set is shuffled over; 0 keeps the order. Stored data are shuffled by
    the trainer."""
    cache_dir: str | None = None
    """Where prepared data are kept; the default is the cache of the ``datasets`` library."""
    seed: Seed = 0
    """Seed of the mixture's order and of streamed shuffling."""

    @property
    def has_types(self) -> bool:
        """Whether rows say what they count as, and how many characters they have."""
        return any(source.batch_type for source in self.train)

    @property
    def attaches_media(self) -> bool:
        """Whether rows say which images belong to them."""
        return self.media in ("keep", "attach")

    def __post_init__(self) -> None:
        """Refuse values that cannot work together."""
        if not self.train:
            raise UserError(
                f"train is {self.train!r}, so there is no data. Use at least one source with a path."
            )
        if self.max_length < 2:
            raise UserError(
                f"max_length is {self.max_length}. Use at least 2: one prompt token and one answer token."
            )
        if self.shuffle_buffer < 0:
            raise UserError(
                f"shuffle_buffer is {self.shuffle_buffer}. Use 0 for no shuffling, or a positive number."
            )
        weighted = [source.weight is not None for source in self.train]
        if any(weighted) and not all(weighted):
            bare = self.train[weighted.index(False)].path
            raise UserError(
                f"{bare!r} has no weight while another source has one. Set it for every source or for none."
            )
        streamed = [source.path for source in self.train if source.streaming]
        if 0 < len(streamed) < len(self.train):
            raise UserError(
                f"streaming is true for {streamed!r} but not for all training sources. Use one value for all."
            )
