"""SPHINX and SPHINX-X: a whole language model tuned on tokens of mixed visual encoders.

Importing this package loads no torch; its names load their modules when they are used. The Auto classes of
transformers are told of the model.
"""

from llama_adapter.lazy import lazy_attributes
from sphinx_ft.auto import announce

__all__ = [
    "EncoderConfig",
    "SphinxCollator",
    "SphinxConfig",
    "SphinxForConditionalGeneration",
    "SphinxProcessor",
    "SphinxTuning",
    "TokenConfig",
    "ViewConfig",
    "mix_models",
    "sweep_beta",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "EncoderConfig": "sphinx_ft.encoders.base",
        "SphinxCollator": "sphinx_ft.collator",
        "SphinxConfig": "sphinx_ft.config",
        "SphinxForConditionalGeneration": "sphinx_ft.model",
        "SphinxProcessor": "sphinx_ft.processor",
        "SphinxTuning": "sphinx_ft.tuning",
        "TokenConfig": "sphinx_ft.tokens",
        "ViewConfig": "sphinx_ft.views",
        "mix_models": "sphinx_ft.weight_mix.mixing",
        "sweep_beta": "sphinx_ft.weight_mix.sweep",
    },
)
announce()
