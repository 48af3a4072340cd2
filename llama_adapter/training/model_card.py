"""What lies beside the adapter weights: a README that says how to load them.

PEFT does not discover plugins, so whoever loads the adapter must import this package first; the README starts
with that line. PEFT writes a README of its own on every save; it is replaced.
"""

from pathlib import Path

_CARD = """---
base_model: {base}
library_name: peft
tags:
- llama-adapter
---

# Adapter for {base}

```python
{code}
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```

{remark}

Prompt template: `{template}`. Ask it a question from the command line:

```
{command}
```
"""

_TEXT_CODE = """import llama_adapter
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{folder}")"""

_TEXT_REMARK = """\
The first import registers the adapter's PEFT method; without it PEFT does not know the type `{kind}`."""

_IMAGE_CODE = """from llama_adapter.models import BaseModelConfig
from llama_adapter.multimodal import ImageConditionedModel
from transformers import AutoTokenizer

base = BaseModelConfig(name_or_path="{base}")
model = ImageConditionedModel.from_pretrained("{folder}", base)"""

_IMAGE_REMARK = """\
The model sees images: `model.encoder.pixels([path])` gives the `pixel_values` of `forward` and `generate`."""


def write_card(folder: Path, base: str, kind: str, template: str | None, sees: bool = False) -> None:
    """Write ``README.md`` into an adapter's folder.

    Args:
        folder: Folder of the adapter.
        base: Name or path of the base model.
        kind: PEFT type of the adapter.
        template: Name of the prompt template it was trained with, if known.
        sees: Whether a conditioner for images lies beside the adapter.
    """
    code, remark = (_IMAGE_CODE, _IMAGE_REMARK) if sees else (_TEXT_CODE, _TEXT_REMARK)
    text = _CARD.format(
        base=base,
        folder=folder.name,
        code=code.format(base=base, folder=folder.name),
        remark=remark.format(kind=kind),
        template=template or "not recorded",
        command=generate_command(base, folder.name, sees),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def generate_command(base: str, adapter: str | None, sees: bool = False) -> str:
    """The command line that asks a trained model a question.

    Args:
        base: Name or path of the base model.
        adapter: Folder of the adapter; None for a base that was trained itself.
        sees: Whether it can be shown an image.
    """
    image = " --image FILE" if sees else ""
    adapted = "" if adapter is None else f" --adapter {adapter}"
    return f'llama-adapter generate --base {base}{adapted}{image} --prompt "..."'
