"""Settings of an image-conditioned model, as ``config.json`` in an adapter's folder has them.

Each part has its own section there, which the code of that part wrote. The base model is not named: that is
what ``adapter_config.json`` beside it does. Nothing but transformers' configuration code is imported, since
the Auto classes need this file early.
"""

from typing import Any

from transformers import PreTrainedConfig


class ImageConditionedConfig(PreTrainedConfig):
    """What ``AutoConfig`` finds in a saved folder."""

    model_type = "image_conditioned"

    def __init__(
        self, conditioner: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **others: Any
    ) -> None:
        """Keeps the settings.

        Args:
            conditioner: of the conditioner; None for one of an official file, whose tensors tell them.
            vision: of the image encoder (``VisionConfig``); None where features are all that was ever seen.
            others: what every configuration has.
        """
        super().__init__(**others)
        self.conditioner, self.vision = conditioner, vision
        self.text_config: Any = None
        """The language model's configuration, in a model that is loaded; it is not saved."""
