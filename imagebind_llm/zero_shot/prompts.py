"""From the name of a class to sentences that a text encoder understands, by modality.

One plain sentence is the default, as in the example of ImageBind's release. An ensemble is several, whose
embeddings are averaged, as CLIP does; for images the 80 of CLIP, which ImageBind was evaluated with, come
from open_clip. No templates of other modalities were published with ImageBind: those here are ours.
"""

from collections.abc import Sequence

from llama_adapter.errors import UserError
from llama_adapter.lazy import needed

PLAIN = "A {}."
ENSEMBLES: dict[str, tuple[str, ...]] = {
    "video": (
        "a video of a {}.",
        "a video of {}.",
        "a clip of {}.",
        "a person doing {}.",
        "an example of {}.",
    ),
    "audio": ("the sound of a {}.", "the sound of {}.", "a recording of {}.", "you can hear {}."),
    "depth": ("a depth map of a {}.", "a depth photo of a {}.", "a photo of a {}.", "this is a {}."),
    "thermal": (
        "a thermal image of a {}.",
        "an infrared photo of a {}.",
        "a photo of a {}.",
        "there is a {}.",
    ),
    "imu": ("a person doing {}.", "someone who is {}.", "a first-person video of {}.", "the motion of {}."),
    "point": ("a point cloud of a {}.", "a 3D model of a {}.", "a photo of a {}.", "the shape of a {}."),
    "text": ("a text about {}.", "this is about {}.", "the topic is {}."),
}


def prompts_for(modality: str, ensemble: bool = False, templates: Sequence[str] = ()) -> list[str]:
    """The templates of a modality, each with ``{}`` in the place of a class's name.

    Args:
        modality: of the records.
        ensemble: several, to average.
        templates: these instead, all of them averaged.

    Raises:
        UserError: a template has not one place for the name, or open_clip is missing.
    """
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(
                f"The template {template!r} has not one {{}}. Write it where the class's name goes."
            )
    if templates:
        return list(templates)
    if not ensemble:
        return [PLAIN]
    if modality == "image":
        open_clip = needed("open_clip", "open_clip_torch", "CLIP's templates", "vision")
        return [make("{}") for make in open_clip.OPENAI_IMAGENET_TEMPLATES]
    return list(ENSEMBLES[modality])
