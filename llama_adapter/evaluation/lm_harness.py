"""lm-evaluation-harness's model `llama-adapter`: base, adapter and template as `generate` loads them.

    python -m llama_adapter.evaluation.lm_harness --model llama-adapter --model_args base=DIR,adapter=DIR ...

is the harness's own command line, which looks for models of others nowhere; importing this module registers
the model as well. Thin on purpose: what is asked and how it is scored are the harness's. Unusual: with
`--apply_chat_template` the harness writes prompts in the template that the adapter was trained with, be it a
chat template or not.
"""

from collections.abc import Sequence
from typing import Any, Literal

from llama_adapter.data import Turn
from llama_adapter.data.records import RecordProblem
from llama_adapter.errors import UserError
from llama_adapter.generation.config import SessionConfig
from llama_adapter.generation.session import Session

try:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    raise UserError(
        f"lm-evaluation-harness cannot be imported ({error}). Run: pip install 'llama-adapter[eval-harness]'"
    ) from error


@register_model("llama-adapter")
class LlamaAdapterLM(HFLM):
    """A base model with its adapter, for the harness; other options of its `hf` model are handed on."""

    def __init__(
        self,
        base: str | None = None,
        adapter: str | None = None,
        template: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        quantization: Literal["none", "nf4", "int8", "fp8"] = "none",
        device: str | None = None,
        **options: Any,
    ) -> None:
        """Loads the model.

        Args:
            base: folder or hub name; by default the base that the adapter names.
            adapter: its folder; without one the base model answers.
            template: `chat`, `alpaca` or `plain`, used by `--apply_chat_template`; `auto`: as the adapter was
                trained.
            dtype: precision of the base weights.
            quantization: keep the base's linear maps in fewer bits.
            device: where to run; None takes a GPU if there is one.
            options: the harness's own, such as `batch_size` and `max_length`.

        Raises:
            UserError: base or adapter cannot be used, or two of the options contradict.
        """
        if taken := sorted({"pretrained", "peft", "tokenizer"} & options.keys()):
            raise UserError(f"{', '.join(taken)} came with the model. Use base and adapter instead.")
        session = Session(
            SessionConfig(
                base=base,
                adapter=[] if adapter is None else [adapter],
                template=template,
                dtype=dtype,
                quantization=quantization,
                device=device or "auto",
            )
        )
        super().__init__(pretrained=session.model, tokenizer=session.tokenizer, **options)
        self.generator = session.generator()

    @property
    def eot_token_id(self) -> int:
        """What ends an answer: the template's end token."""
        return int(self.tokenizer.convert_tokens_to_ids(self.generator.template.end_token))

    @property
    def tokenizer_name(self) -> str:
        """Names tokenizer and template in the harness's caches."""
        return f"{super().tokenizer_name}__{self.generator.template_name}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """What the harness notes about the template; None where it is not applied."""
        return self.generator.template.identity if chat_template else None

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt of a conversation.

        Args:
            chat_history: messages with `role` and `content`.
            add_generation_prompt: False where the last message is the beginning of the answer.

        Raises:
            UserError: the template has no place for such a conversation.
        """
        turns = [Turn(message["role"], message["content"]) for message in chat_history]
        begun = "" if add_generation_prompt else turns.pop().text
        try:
            return self.generator.template.render_prompt(turns) + begun
        except RecordProblem as problem:
            raise UserError(f"{problem}. Use template=plain, or leave out system and examples.") from problem


def main() -> None:
    """Runs the harness's command line, with the model registered."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
