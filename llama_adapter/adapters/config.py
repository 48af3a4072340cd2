"""``ZeroInitConfig``: all options of the method, as PEFT stores them in adapter_config.json."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from peft import PeftConfig

from llama_adapter.adapters.deltas import BLOCKS, DeltaConfig, parse_delta
from llama_adapter.adapters.norms import NormConfig, parse_norms
from llama_adapter.adapters.peft_type import ZERO_INIT
from llama_adapter.adapters.presets import PRESETS
from llama_adapter.adapters.prompts import PromptConfig
from llama_adapter.errors import UserError

IMPORT_LINE = "import llama_adapter  # makes the method known to PEFT, which finds none by itself"
"""What a program must do before it loads a saved adapter."""

FORMAT_VERSION = 1
"""Version of what adapter_config.json and the tensors mean; raised when either changes."""


@dataclass
class ZeroInitConfig(PeftConfig):
    """Configuration of a zero-init adapter: gated prompts, linear deltas, tuned norms, in any combination.

    ``ZeroInitConfig(prompt_length=10, prompt_layers=30)`` is LLaMA-Adapter V1 on a 32-layer model;
    ``ZeroInitConfig(preset="v2")`` adds tuned norms, biases and scales.
    """

    preset: str | None = None
    """Published combination to start from: v1, v2, v21, chat or imagebind. Options given beside it win; the
    name itself is not kept, since the options then say all."""
    prompt_length: int | None = None
    """Learned prompts per layer (10 without a preset); 0 for none."""
    prompt_layers: int | list[int] | None = None
    """Layers with prompts: N for the top-most N, -K for all but the first K, a list of positions from 0, None
    for all."""
    gate: Literal["head", "scalar"] | None = None
    """One gate per query head (the default), or one per layer."""
    gate_activation: Literal["tanh", "identity"] | None = None
    """What the gate goes through: tanh (the default), or nothing, as the first released V1 inference code had
    it."""
    new_gate: bool | None = None
    """Whether a second gate per layer, starting at one, multiplies the first: the released V2.1 weights have
    it."""
    prompt_init_std: float = 1.0
    """Standard deviation of the prompts at the start; published: 1."""
    gate_init_std: float = 0.0
    """Standard deviation of the gates at the start; 0 is the method, anything else its ablation."""
    deltas: list[DeltaConfig | dict[str, Any] | str] | None = None
    """Linear deltas, applied in this order: bias, output_scale, input_scale, lora; a kind, or a mapping with
    options."""
    norms: NormConfig | dict[str, Any] | bool | None = None
    """Tuned norms: true for all of the adapted layers and the last one, or a mapping with options."""
    delta_layers: int | list[int] | None = None
    """Layers with deltas and tuned norms, written like prompt_layers; None for all."""
    layer_stack: str | None = None
    """Path of the layers to adapt, needed only where a model has several stacks."""
    modules_to_save: list[str] | None = None
    """Further modules to train and save whole, such as a new classification head."""
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    """Rows of the input embeddings to train and save, such as those of added tokens; a mapping names the
    embeddings. TRL sets it when it adds the tokens of a chat template."""
    target_modules: list[str] | set[str] | str | None = None
    """Linear maps of the deltas that name no targets themselves, as in PEFT: names, or ends of paths; a
    pattern for whole paths; or all-linear."""
    exclude_modules: list[str] | str | None = None
    """Modules that stay as they are, as in PEFT: names, or ends of paths; or a pattern for whole paths."""
    layers_to_transform: list[int] | int | None = None
    """Positions of the layers to adapt, as in PEFT; in place of prompt_layers and delta_layers."""
    layers_pattern: list[str] | str | None = None
    """Name of the list of layers that layers_to_transform counts, where a model has several."""
    ensure_weight_tying: bool = False
    """Whether embeddings in modules_to_save or trainable_token_indices stay tied to the layers that share
    their weights."""
    format_version: int = FORMAT_VERSION
    """Version of this format."""
    base_fingerprint: dict[str, Any] | None = None
    """What the base model looked like; filled in when the adapter is attached, compared when it is loaded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = ZERO_INIT
        # A fingerprint read from a file is there to be compared; one noted later is there to be saved.
        self.knows_base = self.base_fingerprint is not None
        self._check_format()
        for name, default in self._defaults().items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        self.preset = None
        self._read_target_options()
        self.deltas = list(self.linear_deltas)
        self.norms = self.tuned_norms
        self._check_layers()
        self._check_values()

    @property
    def prompts(self) -> PromptConfig | None:
        """The options of the prompts, or None where there are none."""
        if not self.prompt_length:
            return None
        names = ("gate", "gate_activation", "new_gate", "prompt_init_std", "gate_init_std")
        return PromptConfig(length=self.prompt_length, **{name: getattr(self, name) for name in names})

    @property
    def linear_deltas(self) -> list[DeltaConfig]:
        """The linear deltas, in the order in which they apply."""
        return [parse_delta(delta) for delta in self.deltas or []]

    @property
    def tuned_norms(self) -> NormConfig | None:
        """The options of the tuned norms, or None where none are tuned."""
        return parse_norms(self.norms)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save the options; PEFT's model card beside them gets the import that loading needs."""
        super().save_pretrained(str(save_directory), **kwargs)
        card = Path(save_directory) / "README.md"
        if card.is_file() and IMPORT_LINE not in (text := card.read_text(encoding="utf-8")):
            card.write_text(f"{text}\n## Loading\n\n```python\n{IMPORT_LINE}\n```\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, for adapter_config.json."""
        options = asdict(self)
        if isinstance(self.target_modules, set):
            options["target_modules"] = sorted(self.target_modules)
        return options

    def _defaults(self) -> dict[str, Any]:
        """Values of options that were not given: the preset's, then the method's."""
        if self.preset is not None and self.preset not in PRESETS:
            raise UserError(f"Unknown preset {self.preset!r}. Use one of {sorted(PRESETS)}.")
        method = {
            "prompt_length": 10,
            "gate": "head",
            "gate_activation": "tanh",
            "new_gate": False,
            "deltas": [],
        }
        chosen = method | (PRESETS[self.preset] if self.preset else {})
        if self.layers_to_transform is not None:
            chosen.pop("prompt_layers", None)
        return chosen

    def _read_target_options(self) -> None:
        """Look at PEFT's options for modules; give deltas their default targets."""
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)  # as PEFT's own configs have it
        if self.ensure_weight_tying:
            self.modules_to_tie: set[str] | None = (
                None  # PEFT looks for it; which they are is known with the model
            )
        deltas = self.linear_deltas
        if self.target_modules is None:
            deltas = [replace(d, targets=list(BLOCKS)) if d.targets is None else d for d in deltas]
        elif all(delta.targets is not None for delta in deltas):
            raise UserError(
                f"target_modules={self.target_modules!r} is for deltas without targets of their own, and "
                f"there are none. Leave it out, or add such a delta: deltas=['lora']."
            )
        self.deltas = list(deltas)

    def _check_format(self) -> None:
        """Refuse a file of a later format."""
        if self.format_version > FORMAT_VERSION:
            raise UserError(
                f"This adapter has format version {self.format_version}, newer than {FORMAT_VERSION}. "
                f"Use a newer program: pip install --upgrade llama-adapter."
            )

    def _check_layers(self) -> None:
        """Refuse two options that say which layers, or one that says half of it."""
        if self.layers_to_transform is None:
            if self.layers_pattern:
                raise UserError(
                    f"layers_pattern={self.layers_pattern!r} says what layers_to_transform counts. Set both."
                )
            return
        for name in ("prompt_layers", "delta_layers"):
            if getattr(self, name) is not None:
                raise UserError(
                    f"Both layers_to_transform={self.layers_to_transform} and {name}={getattr(self, name)} "
                    f"came. Use one of them."
                )

    def _check_values(self) -> None:
        """Refuse values that fit no model."""
        allowed = {"gate": ("head", "scalar"), "gate_activation": ("tanh", "identity")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise UserError(f"{name}={getattr(self, name)!r} is unknown. Use one of {list(values)}.")
        for name in ("prompt_length", "prompt_init_std", "gate_init_std"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)} is negative. Use 0 or more.")
        if not self.prompt_length and not self.deltas and self.norms is None:
            raise UserError(
                f"prompt_length=0, deltas={self.deltas}, norms={self.norms} adapt nothing. Set one of them."
            )
