"""A loaded base model with its adapters by name, and the generator of whichever is chosen.

Unusual: every adapter brings its own prompt template, and a conditioner if it was trained with images, so
changing the adapter changes them too; the
name `base` stands for the model without any. It does not know where prompts come from or where answers go.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from llama_adapter.conditioning.files import has_conditioner
from llama_adapter.errors import UserError
from llama_adapter.generation.config import SessionConfig
from llama_adapter.generation.generator import Generator
from llama_adapter.generation.prompts import Prompt
from llama_adapter.media import Mix, SeveralImages
from llama_adapter.models import (
    BaseModelConfig,
    check_adapter,
    load_adapter,
    load_base,
    load_tokenizer,
    read_notes,
    recorded_base,
)
from llama_adapter.multimodal.model import ImageConditionedModel, saved_vision
from llama_adapter.multimodal.sight import Seeing, check_shown, make_sight
from llama_adapter.multimodal.whole import is_whole, open_whole

BASE = "base"
NO_ADAPTER = "__base__"
"""What PEFT calls the base model among the adapters of a batch."""


class Session:
    """The models of one run."""

    def __init__(self, config: SessionConfig) -> None:
        """Loads base and adapters.

        Raises:
            UserError: a folder is missing, holds something else, or an adapter does not fit the base model.
        """
        self.config = config
        self.folders = name_adapters(config.adapter)
        device = choose_device(config.device)
        quantised = config.quantization != "none"
        base = BaseModelConfig(
            name_or_path=config.base or self._recorded_base(),
            dtype=config.dtype,
            quantization=config.quantization,
            allow_misfit=config.allow_misfit,
            device_map=str(device) if quantised else None,  # quantised weights are made where they stay
        )
        whole = open_whole(base) if is_whole(base.name_or_path) else None
        self.tokenizer = load_tokenizer(base)
        if whole is not None and self.folders:
            raise UserError(
                f"{base.name_or_path!r} sees by itself, and adapters came, too: {list(self.folders)}. "
                "Leave --adapter out, or use the base that they name."
            )
        model = load_base(base) if whole is None else whole.model
        self.model: PreTrainedModel | PeftModel = model
        if self.folders:
            self.model = load_adapter(model, self.folders, allow_misfit=config.allow_misfit)
        if not quantised:
            cast("nn.Module", self.model).to(device)
        self._sights: dict[str, Seeing] = {} if whole is None else {BASE: whole}
        self._base_folder = base.name_or_path
        self._without_adapter = ExitStack()
        self.current = BASE
        self.use(config.use or next(iter(self.folders), BASE))

    @property
    def names(self) -> list[str]:
        """What can be chosen."""
        return [*self.folders, BASE]

    def use(self, name: str) -> Generator:
        """Switches to an adapter, or to the base model alone.

        Raises:
            UserError: there is none of that name.
        """
        if name not in self.names:
            raise UserError(f"There is no adapter {name!r}. Use one of: {', '.join(self.names)}.")
        if isinstance(self.model, PeftModel):
            self._without_adapter.close()
            if name == BASE:
                self._without_adapter.enter_context(self.model.disable_adapter())
            else:
                self.model.set_adapter(name)
        self.current = name
        return self.generator()

    def generator(self) -> Generator:
        """The generator of the chosen adapter, with the template it was trained with or the one asked for."""
        return self._generator(self.current)

    def _generator(self, name: str, template: str | None = None) -> Generator:
        """The generator of a name; it sees images if they were part of the adapter's training."""
        return Generator(self.model, self.tokenizer, template or self._template(name), self.sight(name))

    def sight(self, name: str) -> Seeing | None:
        """What shows an adapter, or a base that sees by itself, images; None for one that sees none.

        Raises:
            UserError: its conditioner cannot be loaded.
        """
        if name not in self._sights and name in self.folders and has_conditioner(self.folders[name]):
            model = ImageConditionedModel.around(cast("PeftModel", self.model), self.folders[name], None)
            model.conditioner.to(self.model.device).requires_grad_(False)
            config = self.config
            self._sights[name] = make_sight(
                model.eval(), config.feature_cache, config.visual_cache, config.mixing, config.several_images
            )
        return self._sights.get(name)

    def answer(self, prompts: Sequence[Prompt]) -> list[str]:
        """Answers prompts together, each by the adapter it names, or by the chosen one.

        Every prompt is written in the template of its adapter.

        Raises:
            UserError: there is no adapter of that name.
        """
        names = [prompt.adapter or self.current for prompt in prompts]
        if set(names) <= {self.current}:
            return self.generator().answer(
                [prompt.turns for prompt in prompts],
                self.config,
                images=[prompt.image for prompt in prompts],
                tools=[prompt.tools for prompt in prompts],
            )
        check_names(prompts, self.names)
        chosen = self.current
        self.use(next(iter(self.folders)))  # while `base` is chosen, PEFT passes names over
        try:
            return self._answer_each(prompts, names)
        finally:
            self.use(chosen)

    def _answer_each(self, prompts: Sequence[Prompt], names: list[str]) -> list[str]:
        """The answers of the named adapters; those of one template and one conditioner in one batch."""
        answers: dict[int, str] = {}
        ways = [(self._template(name), self.sight(name)) for name in names]
        for way in dict.fromkeys(ways):
            places = [place for place, own in enumerate(ways) if own == way]
            found = self._generator(names[places[0]]).answer(
                [prompts[place].turns for place in places],
                self.config,
                [NO_ADAPTER if names[place] == BASE else names[place] for place in places],
                [prompts[place].image for place in places],
                [prompts[place].tools for place in places],
            )
            answers |= dict(zip(places, found, strict=True))
        return [answers[place] for place in range(len(prompts))]

    def _template(self, name: str) -> str | None:
        """The template that an adapter was trained with, or the one asked for; None for the tokenizer's."""
        if self.config.template != "auto":
            return self.config.template
        return read_notes(self.folders.get(name, self._base_folder)).template

    def _recorded_base(self) -> str:
        """The base model that the first adapter names.

        Raises:
            UserError: no adapter was given, or it names none.
        """
        if not self.folders:
            raise UserError(
                f"base is {self.config.base}. Add --base FOLDER, or an --adapter that names its base."
            )
        folder = next(iter(self.folders.values()))
        check_adapter(folder)
        return recorded_base(folder)


def check_names(prompts: Sequence[Prompt], known: Sequence[str]) -> None:
    """Refuse prompts that name an adapter that is not there.

    Raises:
        UserError: says which prompt.
    """
    for prompt in prompts:
        if prompt.adapter is not None and prompt.adapter not in known:
            raise UserError(
                f"{prompt.place}: there is no adapter {prompt.adapter!r}. Use one of: {', '.join(known)}."
            )


def check_images(
    prompts: Sequence[Prompt],
    folders: Mapping[str, Path],
    chosen: str,
    base: str | None = None,
    several: SeveralImages = "refuse",
) -> None:
    """Refuse images that nobody would look at.

    Args:
        prompts: what is asked.
        folders: of the adapters, by name.
        chosen: who answers prompts that name no adapter.
        base: folder or name of the base model, where it is given.
        several: what becomes of several images of one prompt.

    Raises:
        UserError: says which prompt.
    """
    for prompt in prompts:
        name = prompt.adapter or chosen
        if name == BASE and is_whole(base):
            continue
        if prompt.image is not None and not (name in folders and has_conditioner(folders[name])):
            shown = f"the image {prompt.image!r}" if isinstance(prompt.image, str) else prompt.image
            raise UserError(
                f"{prompt.place}: {shown} came for {name!r}, which has no conditioner and "
                "sees none. Use an adapter that was trained with images, or leave the image out."
            )
        if isinstance(prompt.image, Mix):
            try:
                check_shown(prompt.image, saved_vision(folders[name]), several, repr(name))
            except UserError as error:
                raise UserError(f"{prompt.place}: {error}") from error


def name_adapters(given: list[str]) -> dict[str, Path]:
    """Names for `FOLDER` and `NAME=FOLDER`; a folder without a name goes by its own.

    Raises:
        UserError: two have the same name, or a name is reserved.
    """
    folders: dict[str, Path] = {}
    for entry in given:
        name, named, folder = entry.partition("=")
        if not named or not re.fullmatch(r"[\w-]+", name):
            folder = entry
            name = re.sub(r"[^\w-]", "_", Path(entry).resolve().name)
        if name in folders or name == BASE:
            raise UserError(
                f"The adapter name {name!r} in {entry!r} is taken. Use --adapter ANOTHER_NAME=FOLDER."
            )
        folders[name] = Path(folder)
    return folders


def choose_device(wanted: str) -> torch.device:
    """The device asked for, or with `auto` the fastest kind that is here.

    Raises:
        UserError: there is no such device.
    """
    here = [
        name for name, module in (("cuda", torch.cuda), ("mps", torch.backends.mps)) if module.is_available()
    ]
    here.append("cpu")
    try:
        device = torch.device(here[0] if wanted == "auto" else wanted)
    except RuntimeError as error:
        raise UserError(
            f"device is {wanted!r}, which torch does not know. Use one of: {', '.join(here)}."
        ) from error
    if device.type in ("cuda", "mps") and device.type not in here:
        raise UserError(f"device is {wanted!r}, but this machine has none. Use one of: {', '.join(here)}.")
    return device
