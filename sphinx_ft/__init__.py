"""SPHINX and SPHINX-X: a whole language model tuned on tokens of mixed visual encoders.

Importing this package loads no torch; its names load their modules when they are used.
"""

from llama_adapter.lazy import lazy_attributes

__all__ = [
    "EncoderConfig",
    "SphinxConfig",
    "SphinxForConditionalGeneration",
    "TokenConfig",
    "ViewConfig",
    "mix_models",
    "sweep_beta",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "EncoderConfig": "sphinx_ft.encoders.base",
        "SphinxConfig": "sphinx_ft.config",
        "SphinxForConditionalGeneration": "sphinx_ft.model",
        "TokenConfig": "sphinx_ft.tokens",
        "ViewConfig": "sphinx_ft.views",
        "mix_models": "sphinx_ft.weight_mix.mixing",
        "sweep_beta": "sphinx_ft.weight_mix.sweep",
    },
)
