"""Tells transformers' Auto classes of SPHINX models, each as soon as it is there."""

from typing import Any

from llama_adapter.multimodal import auto


def announce() -> None:
    """Have the Auto classes know the model from when they are imported on."""
    auto.announce(
        auto.Announced(
            "sphinx_ft.config:SphinxConfig", "SphinxForConditionalGeneration", "SphinxProcessor", _find
        )
    )


def _find(name: str, folder: Any) -> Any:
    """The class of that name; the same for every folder."""
    del folder
    return auto.named_class(f"sphinx_ft:{name}")
