"""The interactive chat: a loop over lines, with history and a few commands.

Unusual: reading and writing come in as functions, so the loop runs the same in a test and in a terminal. A
template without a place for earlier turns gets each question alone, and the user is told. It does not load
anything itself.
"""

from collections.abc import Callable
from functools import partial

from llama_adapter.data import Turn
from llama_adapter.errors import UserError
from llama_adapter.generation.prompts import with_system
from llama_adapter.generation.session import Session
from llama_adapter.media import MODALITIES, MediaItem, Mix, as_shown, read_input

HELP = (
    "/reset forgets the conversation, /adapter NAME switches, /image FILE shows an image, "
    "/image takes it away, /with audio FILE:0.5 mixes another input in (for adapters of ImageBind), "
    "/exit leaves."
)
_PROBE = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]


class Chat:
    """A conversation with one session's models."""

    def __init__(
        self, session: Session, write: Callable[[str], object], image: Mix | str | None = None
    ) -> None:
        """Starts with an empty history.

        Args:
            session: the loaded models.
            write: takes text for the terminal; nothing is added to it.
            image: what the conversation begins with: the file of an image, or a mix of inputs.
        """
        self.session = session
        self.write = write
        self.history: list[Turn] = []
        self.image: Mix | str | None = None
        self.commands: dict[str, Callable[[str], object]] = {
            "/reset": self._reset,
            "/adapter": self._switch,
            **{f"/{name}": partial(self._show, name) for name in MODALITIES},
            "/with": self._add,
            "/help": self._help,
        }
        self.generator = session.generator()
        self.remembers = self._has_history()
        if image is not None:
            self._look_at(image)

    def run(self, ask: Callable[[], str]) -> None:
        """Answers lines until /exit or the end of the input.

        Args:
            ask: returns the next line; raises EOFError when there is none.
        """
        self._help("")
        while True:
            try:
                line = ask().strip()
            except EOFError:
                return
            if line == "/exit":
                return
            if line:
                self.handle(line)

    def handle(self, line: str) -> None:
        """Runs one command or answers one question; wrong input is reported and the chat goes on."""
        command, _, argument = line.partition(" ")
        try:
            if command in self.commands:
                self.commands[command](argument.strip())
            elif command.startswith("/"):
                self.write(f"'{command}' is not a command. {HELP}\n")
            else:
                self._answer(line)
        except UserError as error:
            self.write(f"{error}\n")

    def _answer(self, text: str) -> None:
        """Answers and remembers."""
        history = self.history if self.remembers else []
        turns = [*history, Turn("user", text)]
        answer = self.generator.stream(
            with_system(turns, self.session.config.system), self.session.config, self.write, self.image
        )
        self.write("\n")
        self.history = [*turns, Turn("assistant", answer)]

    def _reset(self, _: str) -> None:
        """Forgets what was said."""
        self.history = []
        self.write("The conversation starts anew.\n")

    def _show(self, modality: str, written: str) -> None:
        """Changes what is looked at, or takes it away."""
        self._look_at(as_shown([read_input(modality, written)] if written else []))

    def _add(self, written: str) -> None:
        """Mixes one more input into what is looked at."""
        modality, _, content = written.partition(" ")
        if modality not in MODALITIES:
            raise UserError(f"{modality!r} is no modality. Use /with and one of {', '.join(MODALITIES)}.")
        image = self.image
        before = image.inputs if isinstance(image, Mix) else [MediaItem("image", image)] if image else []
        self._look_at(as_shown([*before, read_input(modality, content.strip())]))

    def _look_at(self, image: Mix | str | None) -> None:
        """The conversation starts anew."""
        if image is not None:
            self.generator.seen([image])  # what cannot be read, or not be seen, is said before
        self.image, self.history = image, []
        self.write(f"The conversation starts anew, {f'about {image}' if image else 'without an image'}.\n")

    def _switch(self, name: str) -> None:
        """Changes the adapter; the conversation stays."""
        self.generator = self.session.use(name)
        self.remembers = self._has_history()
        self.write(f"{name} answers now, with template {self.generator.template_name}.\n")

    def _help(self, _: str) -> None:
        """Says who answers and what can be typed."""
        self.write(f"{self.session.current} answers ({', '.join(self.session.names)}). {HELP}\n")
        if not self.remembers:
            self.write(
                f"Template {self.generator.template_name} takes one question; earlier ones are not shown.\n"
            )

    def _has_history(self) -> bool:
        """Whether the template has a place for earlier turns."""
        try:
            self.generator.encode(_PROBE)
        except UserError:
            return False
        return True
