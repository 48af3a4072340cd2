"""A language model that learns ImageBind-LLM's two stages from embeddings of drawn digits, and is then asked.

Stage 1 trains the bind network, the prefix and its gates on captions; stage 2 norms, biases and LoRA on
questions, while the rest stays. Which embeddings come from images or sounds is not known here.

Dimensions: R records, E width of the space.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from digits import CAPTIONS, NAMING, QUESTIONS, WORDS, held_out
from peft import get_peft_model
from torch import Tensor
from transformers import set_seed

from imagebind_llm import BindConfig, BindNetwork, ImageBindLlm
from llama_adapter import ZeroInitConfig
from llama_adapter.data import DataConfig, PaddingCollator, SourceConfig, Turn, build_datasets
from llama_adapter.data.feature_collator import FeatureCollator
from llama_adapter.evaluation.captions.task import INSTRUCTION
from llama_adapter.generation import Generator
from llama_adapter.models import BaseModelConfig, load_base, load_tokenizer
from llama_adapter.training import TrainingConfig
from llama_adapter.training.groups import GroupConfig, ParameterGroups
from llama_adapter.training.parts import TrainedParts
from llama_adapter.training.trainer import Trainer

STAGES = {
    "captions": [
        GroupConfig(parts=["conditioner"], learning_rate=5e-4),
        GroupConfig(parts=["prompt"], learning_rate=3e-3),
        GroupConfig(parts=["gate"], learning_rate=1e-2),
    ],
    "questions": [GroupConfig(parts=["norm", "bias", "lora"], learning_rate=1.5e-3)],
}
"""Stage -> what trains."""


class Learner:
    """The model and its training."""

    def __init__(self, base: str, folder: Path, features: Mapping[str, Tensor], seed: int) -> None:
        """Loads the base, with an adapter and a bind network that do nothing yet.

        Args:
            base: folder or name of the language model.
            folder: for records and adapters.
            features: embeddings (1, E) of training pictures by their files.
            seed: of first weights and of the order of records.
        """
        self.folder, self.features, self.seed = folder, features, seed
        self.seconds: dict[str, float] = {}
        config = BaseModelConfig(name_or_path=base, dtype="float32")
        self.tokenizer: Any = load_tokenizer(config)
        set_seed(seed)
        language_model: Any = load_base(config)
        hidden = language_model.config.hidden_size
        adapter = ZeroInitConfig(preset="imagebind", task_type="CAUSAL_LM", prompt_init_std=0.1)
        bind = BindConfig(
            hidden_size=hidden, feature_width=next(iter(features.values())).shape[1], inner_width=2 * hidden
        )
        self.model = ImageBindLlm(get_peft_model(language_model, adapter), BindNetwork(bind))
        parts = TrainedParts.of(self.model)
        self._trainable = [weight for _, weight in parts.named_parameters() if weight.requires_grad]
        self.generator = Generator(self.model.language_model, self.tokenizer, "plain")

    def learn_captions(self, digits: Sequence[int], steps: int, rows: int) -> None:
        """Stage 1.

        Args:
            digits: of the pictures, in the order of the features.
            steps: optimiser steps.
            rows: pictures in one step.
        """
        records = [
            {"image": path, "caption": [" " + text.format(WORDS[digit]) for text in CAPTIONS]}
            for path, digit in zip(self.features, digits, strict=True)
        ]
        self._train("captions", records, steps, rows)

    def learn_questions(self, digits: Sequence[int], steps: int, rows: int) -> None:
        """Stage 2, with the same arguments; what ``held_out`` says is not asked."""
        records = [
            {
                "image": path,
                "conversations": [
                    {"from": "human", "value": question},
                    {"from": "gpt", "value": " " + answer(digit)},
                ],
            }
            for path, digit in zip(self.features, digits, strict=True)
            for question, answer in QUESTIONS.items()
            if not held_out(question, digit)
        ]
        self._train("questions", records, steps, rows)

    def _train(self, stage: str, records: list[dict[str, Any]], steps: int, rows: int) -> None:
        """One stage through the project's trainer."""
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "train.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        data = build_datasets(
            DataConfig(train=[SourceConfig(path=str(file))], template="plain", media="attach"), self.tokenizer
        )
        for weight in self._trainable:
            weight.requires_grad_(True)
        parts = TrainedParts.of(self.model)
        trainer = Trainer(
            model=self.model,
            args=self._settings(folder, steps, rows),
            train_dataset=data.train,
            data_collator=FeatureCollator(PaddingCollator(self.tokenizer.pad_token_id), self.features),
            processing_class=self.tokenizer,
            groups=ParameterGroups(parts, STAGES[stage]),
        )
        start = time.monotonic()
        trainer.train()
        self.seconds[stage] = time.monotonic() - start
        trainer.save_trained(folder / "adapter")

    def _settings(self, folder: Path, steps: int, rows: int) -> TrainingConfig:
        """The same for both stages; rates are those of ``STAGES``."""
        return TrainingConfig(
            output_dir=str(folder),
            overwrite_output_dir=True,
            learning_rate=1e-3,
            adam_beta2=0.95,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, steps // 10),
            max_steps=steps,
            per_device_train_batch_size=rows,
            save_strategy="no",
            logging_steps=10,
            seed=self.seed,
            bf16=False,
        )

    def ask(self, question: str, embeddings: Tensor, longest: int = 4) -> list[str]:
        """Greedy answers to one question about every embedding (R, E)."""
        self.model.eval()
        prompt = torch.tensor([self.generator.encode([Turn("user", question)])])
        said: list[str] = []
        for batch in embeddings.split(60):
            rows = prompt.repeat(len(batch), 1)
            output = self.model.generate(
                rows,
                embeddings=batch,
                attention_mask=torch.ones_like(rows),
                do_sample=False,
                max_new_tokens=longest,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            texts = self.tokenizer.batch_decode(output[:, rows.shape[1] :], skip_special_tokens=True)
            said += [" ".join(text.split()) for text in texts]
        return said

    def name_digits(self, embeddings: Tensor) -> list[str]:
        """Which digit each embedding (R, E) is."""
        return self.ask(NAMING, embeddings)

    def named(self, embeddings: Tensor, digits: Sequence[int]) -> float:
        """Share of captions that name the digit and no other, in percent."""
        said = self.ask(INSTRUCTION, embeddings, longest=9)
        found = [[word for word in WORDS if word in text.split()] for text in said]
        return 100 * sum(words == [WORDS[d]] for words, d in zip(found, digits, strict=True)) / len(digits)

    def answers(self, embeddings: Tensor, digits: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Accuracies by question, and over the pairs that training asked and those it did not."""
        found: dict[str, dict[str, Any]] = {}
        pools: dict[str, list[tuple[str, str]]] = {"pairs that were trained": [], "pairs that were not": []}
        for question, answer in QUESTIONS.items():
            said = self.ask(question, embeddings)
            pairs = [(text, answer(digit)) for text, digit in zip(said, digits, strict=True)]
            found[question] = {**_scores(pairs), "said": said}
            for pair, digit in zip(pairs, digits, strict=True):
                pools[
                    "pairs that were not" if held_out(question, digit) else "pairs that were trained"
                ].append(pair)
        return found | {name: _scores(pairs) for name, pairs in pools.items()}


def _scores(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Percent right, and what the best answer that is always the same would get."""
    right = sum(said == wanted for said, wanted in pairs)
    _, most = Counter(wanted for _, wanted in pairs).most_common(1)[0]
    return {"accuracy": 100 * right / len(pairs), "constant": 100 * most / len(pairs)}
