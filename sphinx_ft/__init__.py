"""SPHINX and SPHINX-X: a whole language model tuned on tokens of mixed visual encoders.

Importing this package loads no torch; its names load their modules when they are used.
"""

from llama_adapter.lazy import lazy_attributes

__all__ = ["ViewConfig", "mix_models", "sweep_beta"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "ViewConfig": "sphinx_ft.views",
        "mix_models": "sphinx_ft.weight_mix.mixing",
        "sweep_beta": "sphinx_ft.weight_mix.sweep",
    },
)
