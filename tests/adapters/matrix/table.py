"""The support matrix itself: which check is run on which model, and the page that says so.

A cell is run unless a rule below says why not; there is no third way, so none can be missing. Where the
package declares that a model has no place for a part, the cell runs the same check, which expects the error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.adapters.matrix import execution, generation, gradients, identity, lifecycle, processes
from tests.adapters.matrix.subjects import SUBJECTS, Subject
from tests.adapters.matrix.tiny_models import IMAGE, TEXT

NO_PROMPTS = "no prompts"
COMMAND = "python -m tests.adapters.matrix --write docs/support-matrix.md"

_WITHOUT_PROMPTS = {NO_PROMPTS: "the model takes no prompts"}
_NO_CACHE = dict.fromkeys((TEXT, IMAGE), "an encoder has no KV cache and does not generate")
_EAGER_ONLY = "transformers has only eager attention for this model"
_ONE_IMPLEMENTATION = {
    "gemma2": "transformers refuses sdpa for this model; eager is compared with flex attention instead",
    "bloom": _EAGER_ONLY,
    "mpt": _EAGER_ONLY,
    "deberta-v2": _EAGER_ONLY,
}
_NO_FLEX = dict.fromkeys(
    ("gpt2", "falcon", "bloom", "mpt", "deberta-v2"), "transformers refuses flex attention for this model"
)
_INDUCTOR = dict.fromkeys(
    SUBJECTS.keys() - {"llama", "bert"}, "inductor is run on LLaMA and BERT, all others through aot_eager"
)
_NO_OFFLOAD = dict.fromkeys(
    ("siglip_vision_model", "deberta-v2"),
    "accelerate cannot offload this model, with or without an adapter",
)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row: what must hold, and where it has no meaning."""

    title: str
    run: Callable[[Subject], None]
    not_applicable: dict[str, str] = field(default_factory=dict)
    """Model type, kind of model, or ``no prompts`` -> reason."""
    parts: tuple[str, ...] = ()
    """Parts that the check needs; where the package declares one unsupported, it must raise."""
    slow: bool = False

    @property
    def name(self) -> str:
        return self.run.__name__


@dataclass(frozen=True)
class Cell:
    """Whether a check is run on a model, expects an error there, or says why it is not run."""

    state: str
    reason: str = ""


RUN, REFUSES, NOT_APPLICABLE = "yes", "refuses", "n/a"


def _check(title: str, run: Callable[[Subject], None], rules: dict[str, str] | None = None) -> Check:
    return Check(title=title, run=run, not_applicable=rules or {})


def _preset(name: str, run: Callable[[Subject], None], *parts: str) -> Check:
    return Check(title=f"Preset {name}", run=run, parts=parts)


CHECKS = [
    Check(
        title="Prompts attach to every layer",
        run=identity.prompts_are_taken_or_refused,
        parts=("prompts",),
    ),
    _check("Bias, scale, LoRA and norms work alone", identity.deltas_alone_change_the_output),
    _check("A new adapter is the base, bit for bit", identity.new_adapter_changes_nothing),
    _check("Every head's gate has its effect", identity.every_gate_changes_the_output, _WITHOUT_PROMPTS),
    _check("Prompts follow the formula", identity.prompts_follow_the_formula, _WITHOUT_PROMPTS),
    _check("Two active adapters add up", identity.two_adapters_add_up, _WITHOUT_PROMPTS),
    _check("eager == sdpa", identity.implementations_agree, _ONE_IMPLEMENTATION),
    _check(
        "set_attn_implementation later",
        identity.implementation_may_change_later,
        _ONE_IMPLEMENTATION | {"falcon": "transformers cannot switch this model's attention later"},
    ),
    _check("flex attention agrees", execution.flex_attention_agrees, _NO_FLEX),
    _check(
        "Gradients reach all trainable tensors, only those", gradients.gradients_reach_all_and_only_trainable
    ),
    _check(
        "Prompts get exactly zero gradient while gates are zero",
        gradients.prompts_wait_for_their_gates,
        _WITHOUT_PROMPTS,
    ),
    _check("Activation checkpointing keeps gradients", gradients.activation_checkpointing_keeps_gradients),
    _check("Nothing is kept below the first adapted layer", gradients.nothing_is_kept_below_the_adapter),
    _check("Saved, reloaded in a fresh process: equal", processes.reloads_in_a_fresh_process),
    _check("Padding changes nothing", generation.padding_changes_nothing, {IMAGE: "images are not padded"}),
    _check("Batch == single rows", identity.batch_equals_single_rows),
    _check("KV cache == no cache", generation.cache_changes_nothing, _NO_CACHE),
    _check("Static cache == no cache", generation.static_cache_changes_nothing, _NO_CACHE),
    _check("Beam search, cache == no cache", generation.beams_with_cache_equal_beams_without, _NO_CACHE),
    _check("torch.compile, one graph, 20 steps, no recompile", processes.compiled_training_never_recompiles),
    Check(
        title="torch.compile with inductor",
        run=processes.inductor_training_never_recompiles,
        not_applicable=_INDUCTOR,
        slow=True,
    ),
    _check("bfloat16, pure and with a float32 adapter", execution.half_precision_stays_close),
    _check("deepcopy is independent", lifecycle.copy_is_independent),
    _check("Add, switch, disable, delete adapters", lifecycle.adapters_add_switch_disable_delete),
    _check("unload restores the base", lifecycle.unload_restores_the_base),
    _check("Unadapted models stay untouched", processes.bystanders_stay_untouched),
    _check("Base with offloaded weights", lifecycle.offloaded_base_works, _NO_OFFLOAD),
    _preset("v1", lifecycle.v1_preset, "prompts"),
    _preset("v2", lifecycle.v2_preset, "prompts", "mlp", "v2"),
    _preset("v21", lifecycle.v21_preset, "prompts", "mlp", "v2"),
    _preset("chat", lifecycle.chat_preset, "mlp"),
    _preset("imagebind", lifecycle.imagebind_preset, "prompts", "mlp", "v2"),
]


def cell(check: Check, subject: Subject) -> Cell:
    """What happens where a row and a column of the table meet."""
    selectors = [subject.model_type, subject.kind] + ([] if subject.takes_prompts else [NO_PROMPTS])
    for selector in selectors:
        if selector in check.not_applicable:
            return Cell(NOT_APPLICABLE, check.not_applicable[selector])
    for part in check.parts:
        if part in subject.family.unsupported:
            return Cell(REFUSES, subject.family.unsupported[part])
    return Cell(RUN)


def page() -> str:
    """The table as docs/support-matrix.md holds it."""
    reasons: dict[str, int] = {}
    rows = [_row(check, reasons) for check in CHECKS]
    titles = [subject.title for subject in SUBJECTS.values()]
    notes = [f"{number}. {reason[0].upper()}{reason[1:]}." for reason, number in reasons.items()]
    zeros = [
        f"* {subject.title}: `{'`, `'.join(subject.structural_zeros)}`"
        for subject in SUBJECTS.values()
        if subject.structural_zeros
    ]
    return "\n".join(
        [
            _HEAD,
            _line(["", *titles]),
            _line(["---"] + [":-:"] * len(titles)),
            *rows,
            "",
            *notes,
            "",
            _ZEROS,
            *zeros,
            "",
        ]
    )


def _row(check: Check, reasons: dict[str, int]) -> str:
    texts = []
    for subject in SUBJECTS.values():
        found = cell(check, subject)
        note = f" [{reasons.setdefault(found.reason, len(reasons) + 1)}]" if found.reason else ""
        texts.append(found.state + note)
    return _line([check.title, *texts])


def _line(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


_HEAD = f"""# Support matrix

What the tests run, model by model. Each cell is one test on a tiny random model:

* **yes**: the check is run and must pass;
* **refuses**: the model has no place for the part; the check expects an error that says why and what works;
* **n/a**: the check has no meaning there.

The number beside a cell points to the reason below the table. A model of another type whose attention is
built like one of these works as well, with a warning that no test runs it.

This page is generated by `{COMMAND}`; run the checks with
`pytest tests/adapters/matrix` (add `-m slow` for inductor).
"""

_ZEROS = """## Tensors that get no gradient

With every gate at zero the prompts get exactly zero gradient; the gates move first, the prompts one step
later. While a LoRA's `up` is zero its `down` gets none either. These never get any, because a softmax does
not see what is added to all scores of a query alike:
"""
