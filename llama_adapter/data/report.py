"""What became of the records: counts that add up, and the lengths that decide batch size and padding.

Filled record by record by whoever prepares data; it knows neither where records come from nor how they are
encoded.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from rich.table import Table

KEPT, TRUNCATED, DROPPED, BAD = "kept", "truncated", "dropped", "bad"
"""What can happen to a record; it has one fate only. Truncated records are used, too."""


@dataclass(frozen=True)
class Figures:
    """A report in numbers, for logs and JSON."""

    read: int
    """Records found."""
    used: int
    """Records that became training rows, truncated ones included."""
    truncated: int
    """Records that had to be shortened."""
    dropped: int
    """Records left out because they are too long."""
    bad: int
    """Records left out because they cannot be used."""
    examples: int
    """Training rows made of the used records; more than these where conversations were split."""
    answers_rewritten: int
    """Answers that the chat template writes otherwise once more turns follow; ``DataConfig.rewritten_turns``
    says what becomes of them."""
    answers_left_out: int
    """Later answers of truncated conversations that did not fit."""
    with_media: int
    """Records that name images or other media."""
    tokens: int
    """Tokens in all rows."""
    label_tokens: int
    """Tokens with loss in all rows."""
    mean_length: float
    """Tokens per row."""
    p50_length: int
    """Half of the rows are at most this long."""
    p90_length: int
    """Nine of ten rows are at most this long."""
    max_length: int
    """The longest row."""
    padding_share: float
    """Share of padding in batches padded to the configured maximum, from 0 to 1."""


@dataclass
class Report:
    """Counts what became of the records of one split."""

    limit: int
    """The configured maximum length, in tokens."""
    sources: int = 0
    """How many sources are counted."""
    fates: dict[str, int] = field(default_factory=lambda: dict.fromkeys((KEPT, TRUNCATED, DROPPED, BAD), 0))
    """How many records had which fate."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of every row, in no particular order."""
    label_tokens: int = 0
    """Tokens with loss."""
    answers_left_out: int = 0
    """Later answers of truncated conversations that did not fit."""
    answers_rewritten: int = 0
    """Answers that the chat template writes otherwise once more turns follow."""
    with_media: int = 0
    """Records that name media."""
    unread: Counter[str] = field(default_factory=Counter)
    """Key -> how many records hold something there that is not read."""
    streamed: bool = False
    """Whether the data are read while training, so that nothing is known yet."""

    def add(
        self,
        fate: str,
        length: int,
        label_tokens: int,
        left_out: int = 0,
        media: int = 0,
        rewritten: int = 0,
        part: int = 0,
    ) -> None:
        """Count one row, and its record if it is the first of that.

        Args:
            fate: one of KEPT, TRUNCATED, DROPPED, BAD.
            length: tokens of the row.
            label_tokens: tokens with loss.
            left_out: answers that did not fit.
            media: how many media it names.
            rewritten: answers of the record that its template rewrites.
            part: which row of its record it is, from 0.
        """
        if part == 0:
            self.fates[fate] += 1
            self.with_media += bool(media)
        if fate in (KEPT, TRUNCATED):
            self.lengths.append(length)
            self.label_tokens += label_tokens
            self.answers_left_out += left_out
            self.answers_rewritten += rewritten

    def add_unread(self, keys: Iterable[str]) -> None:
        """Count the keys of one record that were not read."""
        self.unread.update(keys)

    def merge(self, other: "Report") -> None:
        """Add the counts of another source."""
        self.sources += other.sources
        for fate, count in other.fates.items():
            self.fates[fate] += count
        self.lengths.extend(other.lengths)
        self.label_tokens += other.label_tokens
        self.answers_left_out += other.answers_left_out
        self.answers_rewritten += other.answers_rewritten
        self.with_media += other.with_media
        self.unread += other.unread
        self.streamed = self.streamed or other.streamed

    def figures(self) -> Figures:
        """The counts with the statistics of the lengths."""
        ordered = sorted(self.lengths)
        rows, tokens = len(ordered), sum(ordered)
        return Figures(
            read=sum(self.fates.values()),
            used=self.fates[KEPT] + self.fates[TRUNCATED],
            truncated=self.fates[TRUNCATED],
            dropped=self.fates[DROPPED],
            bad=self.fates[BAD],
            examples=rows,
            answers_rewritten=self.answers_rewritten,
            answers_left_out=self.answers_left_out,
            with_media=self.with_media,
            tokens=tokens,
            label_tokens=self.label_tokens,
            mean_length=tokens / rows if rows else 0.0,
            p50_length=_quantile(ordered, 0.5),
            p90_length=_quantile(ordered, 0.9),
            max_length=ordered[-1] if rows else 0,
            padding_share=1 - tokens / (rows * self.limit) if rows else 0.0,
        )

    def to_dict(self) -> dict[str, int | float]:
        """The figures as a plain dict, for JSON."""
        return asdict(self.figures())

    def summary(self) -> str:
        """One line for a log."""
        if self.streamed:
            return "streamed: records are counted while they are read"
        f = self.figures()
        fates = f"{f.used} used ({f.truncated} truncated), {f.dropped} too long, {f.bad} bad"
        lengths = f"mean {f.mean_length:.0f}, p50 {f.p50_length}, p90 {f.p90_length}, max {f.max_length}"
        if f.answers_rewritten:
            fates += f", {f.answers_rewritten} answers rewritten by the template: {f.examples} examples"
        return (
            f"{f.read} records read, {fates}; {f.tokens} tokens, {f.label_tokens} with loss; "
            f"length {lengths}; padding to {self.limit} would be {f.padding_share:.0%}"
        )

    def table(self, title: str) -> Table:
        """The figures as a table for the terminal.

        Args:
            title: what the report is about.

        Returns:
            A rich table with a row per figure.
        """
        table = Table(title=title, show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_row("sources", f"{self.sources:,}")
        if self.streamed:
            table.add_row("records", "counted while they are read")
            return table
        for name, value in self.to_dict().items():
            shown = f"{value:,}" if isinstance(value, int) else f"{value:.1f}"
            if name == "padding_share":
                table.add_row(f"padding if padded to {self.limit}", f"{value:.1%}")
            else:
                table.add_row(name.replace("_", " "), shown)
        for key, count in sorted(self.unread.items()):
            table.add_row(f"not read: {key}", f"{count:,}")
        return table


def said_unread(counts: Mapping[str, int]) -> str:
    """Keys that were not read, in one line.

    Args:
        counts: key -> how many records hold something there.

    Returns:
        The line; empty without keys.
    """
    said = ", ".join(f"{key} ({count:,} records)" for key, count in sorted(counts.items()))
    return f"not read: {said}" if said else ""


def _quantile(ordered: list[int], share: float) -> int:
    """The smallest value that at least this share of the values does not exceed; 0 without values."""
    if not ordered:
        return 0
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(rank, 1) - 1]
