"""The encoders that a mix can have, by name. A new one is a file with ``make``, and a line here."""

import importlib

from llama_adapter.errors import UserError
from sphinx_ft.encoders.base import EncoderConfig, GridEncoder, QueryEncoder

ENCODERS = {
    "clip": "sphinx_ft.encoders.clip",
    "convnext": "sphinx_ft.encoders.convnext",
    "dinov2": "sphinx_ft.encoders.dinov2",
    "qformer": "sphinx_ft.encoders.qformer",
    "tower": "sphinx_ft.encoders.tower",
}
"""Kind -> module whose ``make`` takes an ``EncoderConfig``."""


def make_encoder(config: EncoderConfig) -> GridEncoder | QueryEncoder:
    """The encoder that a config describes, with random weights unless its settings name some.

    Raises:
        UserError: there is no such kind, a setting does not fit, or the queries do not go with it.
    """
    if config.kind not in ENCODERS:
        raise UserError(f"There is no encoder of the kind {config.kind!r}. Use one of {sorted(ENCODERS)}.")
    encoder: GridEncoder | QueryEncoder = importlib.import_module(ENCODERS[config.kind]).make(config)
    if isinstance(encoder, QueryEncoder) != (config.queries > 0):
        right = "a number above 0" if isinstance(encoder, QueryEncoder) else "0"
        raise UserError(
            f"The encoder {config.name!r} has queries={config.queries}. Use {right} for {config.kind!r}."
        )
    return encoder
