"""Settings of generation: how tokens are chosen, which model answers, and what `generate` reads and writes.

Each class extends the one before, so every option of a verb is a flat `--name`; `evaluate` builds on the
second. No torch is imported here.
"""

from dataclasses import dataclass, field
from typing import Literal

from llama_adapter.errors import UserError
from llama_adapter.limits import Count, PartOf, Positive, Rate, Seed
from llama_adapter.media import MODALITIES, Mixing, SeveralImages
from llama_adapter.values import check_ranges


@dataclass(kw_only=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop.

    Raises:
        UserError: a value is out of range.
    """

    max_new_tokens: Count = 256
    """Longest answer, in tokens."""

    temperature: Rate = 0.0
    """0 takes the most likely token (greedy); above, the logits are divided by it and a token is drawn."""

    top_p: PartOf = 1.0
    """Draw from the most likely tokens that together hold this share of the probability; 1 takes all."""

    repetition_penalty: Positive = 1.0
    """Above 1, tokens that occurred before become less likely."""

    seed: Seed | None = None
    """Makes drawing repeatable; the random state outside is left as it was."""

    batch_size: Count = 8
    """Prompts answered at once."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_ranges(self)


@dataclass(kw_only=True)
class SessionConfig(SamplingConfig):
    """Who answers: a base model, its adapters, and how a prompt is put to them."""

    base: str | None = None
    """Folder or hub name of the base model; by default the one the first adapter was trained on."""

    adapter: list[str] = field(default_factory=list)
    """Folder of an adapter, or NAME=FOLDER; may be repeated. Without any, the base model answers."""

    use: str | None = None
    """Name of the adapter that answers; the first one by default, `base` for the base model alone."""

    template: str = "auto"
    """How a prompt becomes text: `chat`, `alpaca`, `plain`; `auto`: as the adapter was trained."""

    system: str | None = None
    """System message, put before every conversation."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the base weights; `auto` keeps the one they were saved in."""

    quantization: Literal["none", "nf4", "int8", "fp8"] = "none"
    """Keep the base's linear maps in fewer bits, as ``base.quantization`` does in training."""

    allow_misfit: list[str] = field(default_factory=list)
    """Tensors, by name or pattern such as ``lm_head.*``, that may be missing, unexpected, of another shape or
    not finite in the files of base and adapters."""

    feature_cache: str | None = None
    """Folder that keeps what the image encoder makes of each image, for the next run; none by default."""

    visual_cache: str | None = None
    """Folder of `cache build`, or an index file: embeddings are drawn towards those of its pictures first."""

    mixing: Mixing = "published"
    """What becomes of the length of several inputs' mix: as published it stays; `unit` makes it 1."""

    several_images: SeveralImages = "refuse"
    """Several images of one prompt are refused; `average` adds the mean of what the conditioner makes of
    each. Adapters were trained with one, so this is for trying. An adapter of ImageBind mixes them anyway."""

    device: str = "auto"
    """Where to run, such as `cpu` or `cuda:1`; `auto` takes a GPU if there is one."""


@dataclass(kw_only=True)
class GenerateConfig(SessionConfig):
    """Answer prompts with a base model and its adapters: --prompt, --prompt-file or --interactive."""

    prompt: list[str] = field(default_factory=list)
    """A prompt; may be repeated. The answer is printed as it is written."""

    image: list[str] = field(default_factory=list)
    """Image file for an adapter that was trained with images; one for all prompts, or repeated, one for each;
    several for one prompt need --several-images average. In a chat the image of the first question; /image
    changes it. An adapter trained with ImageBind mixes inputs of several options, each FILE or FILE:WEIGHT;
    weights may be negative."""

    video: list[str] = field(default_factory=list)
    """A video, or VIDEO:WEIGHT; may be repeated, as all that follow."""

    text: list[str] = field(default_factory=list)
    """A text beside the prompt, which ImageBind reads as it sees an image; or TEXT:WEIGHT."""

    audio: list[str] = field(default_factory=list)
    """A sound."""

    depth: list[str] = field(default_factory=list)
    """A depth map."""

    thermal: list[str] = field(default_factory=list)
    """A thermal picture."""

    imu: list[str] = field(default_factory=list)
    """A motion, as CSV or NPY."""

    point: list[str] = field(default_factory=list)
    """A point cloud."""

    prompt_file: str | None = None
    """Prompts from a file: a line each, or records in any format that training reads, with the media they
    name (paths start beside the file), ``inputs`` such as {"audio": "rain.wav:0.3", "text": "a dog"}, and
    ``adapter`` where one of several adapters is to answer. Answers at their end are left out."""

    columns: dict[str, str] = field(default_factory=dict)
    """Other names for columns of the prompt file, those of media included, as ``expected: yours``, for
    example {prompt: question, image: screenshot}."""

    media_name: str | None = None
    """How an image of the prompt file is called where records have its number only:
    ``COCO_val2014_{image_id:012d}.jpg``."""

    marks: Literal["media", "text"] = "media"
    """What ``<image>``, ``<audio>`` and ``<video>`` are in a record of the prompt file that names no media: a
    mistake, which is reported, or words of its text."""

    ignore: list[str] = field(default_factory=list)
    """Keys of the prompt file that are knowingly not read."""

    output: str | None = None
    """JSONL file for the answers, instead of printing them."""

    interactive: bool = False
    """Chat in the terminal; /help lists the commands."""

    def __post_init__(self) -> None:
        """Checks that exactly one kind of input was asked for."""
        super().__post_init__()
        asked = {
            "--prompt": bool(self.prompt),
            "--prompt-file": self.prompt_file is not None,
            "--interactive": self.interactive,
        }
        given = [name for name, present in asked.items() if present]
        if len(given) != 1:
            raise UserError(f"Got {' and '.join(given) or 'no prompt'}. Use one of {', '.join(asked)}.")
        self._check_inputs()
        if self.interactive and self.output is not None:
            raise UserError(
                f"output is {self.output!r}, but a chat is not written. Use --prompt or --prompt-file."
            )

    @property
    def inputs(self) -> dict[str, list[str]]:
        """What is shown beside the prompts, by modality, as it was written."""
        return {name: given for name in MODALITIES if (given := getattr(self, name))}

    @property
    def one_image_each(self) -> bool:
        """Whether every one of several prompts has an image of its own."""
        return set(self.inputs) == {"image"} and len(self.image) == len(self.prompt) > 1

    def _check_inputs(self) -> None:
        """Refuses inputs that belong to no prompt."""
        if self.prompt_file is not None and self.inputs:
            raise UserError(
                f"{' and '.join(self.inputs)} came, but prompts come from {self.prompt_file!r}. "
                "Use the fields `image` and `inputs` of its records."
            )
        most = len(self.prompt)
        if set(self.inputs) == {"image"} and most > 1 and len(self.image) not in (1, most):
            raise UserError(
                f"{len(self.image)} images came for {most} prompts. Use one for all, or one for each."
            )
