"""Reports on the data that a model is trained on and on what is left out of them, and stops a
training run that has too much broken data.
"""

from pathlib import Path
from typing import Any

from alam_core.data.frames import FrameStore
from alam_core.data.mixture import VideoSource
from alam_core.errors import UserError
from alam_core.files import write_json

REPORT = "data_report.json"  # in the run's folder
EXAMPLES, SHORT_EXAMPLES = 3, 10  # episodes named in the summary of a source
NUMBERS = 20  # episodes, to write them all in a message


class DataReport:
    """The sources, and for each of them the episodes that are held out, too short, broken or
    excluded by the user; updated during training.

    short, held_out: episode numbers, a list per source. max_broken: the largest share of a source's
    episodes, 0 to 1, that may be broken or too short; what the user excludes does not count. Raises
    UserError if there are more.
    """

    def __init__(
        self,
        sources: list[VideoSource],
        short: list[list[int]],
        held_out: list[list[int]],
        max_broken: float,
    ) -> None:
        self.sources, self.short, self.held_out = sources, short, held_out
        self.max_broken = max_broken
        self.broken: list[dict[int, str]] = [{} for _ in sources]
        self.replaced = [0] * len(sources)  # triplets that were drawn again
        for number, source in enumerate(sources):
            self.update(number, source.broken)

    def add(self, number: int, episode: int, why: str, replaced: int = 0) -> None:
        """Record that an episode of a source turned out to be broken and that ``replaced`` triplets
        were redrawn because of it. number: index of the source.

        Raises UserError if more than ``max_broken`` of the source's episodes are broken.
        """
        self.replaced[number] += replaced
        if episode not in self.broken[number]:
            self.update(number, {episode: why})

    def update(self, number: int, broken: dict[int, str]) -> None:
        """Record broken episodes (episode -> reason) of a source. Raises UserError like ``add``."""
        own = self.broken[number]
        left_out = self.sources[number].excluded
        own |= {e: why for e, why in broken.items() if e not in left_out and e not in own}
        self._check(number)

    def left_out(self, number: int) -> set[int]:
        """The episodes of a source that are not trained on: broken, too short or excluded."""
        return {*self.broken[number], *self.short[number], *self.sources[number].excluded}

    def found(self) -> tuple[list[dict[int, str]], list[int]]:
        """The findings of this process, for ``merge`` in another one."""
        return self.broken, self.replaced

    def merge(self, others: list[tuple[list[dict[int, str]], list[int]]]) -> None:
        """Take over the findings of all processes, including this one."""
        for broken, _ in others:
            for number, faults in enumerate(broken):
                self.broken[number] = faults | self.broken[number]
        self.replaced = [
            sum(replaced[number] for _, replaced in others) for number in range(len(self.sources))
        ]

    def _check(self, number: int) -> None:
        source, broken = self.sources[number], self.broken[number]
        short = set(self.short[number]) - broken.keys()
        episodes = len(source.lengths)
        if len(broken) + len(short) <= self.max_broken * episodes:
            return
        first = next(iter(short), 0)
        example = next(iter(broken.values()), f"episode {first} has {source.lengths[first]} frames")
        short_too = f" and {len(short)} too short" if short else ""
        numbers = sorted({*broken, *short, *source.excluded})
        given = f" '{numbers}'".replace(", ", ",") if len(numbers) <= NUMBERS else ""
        raise UserError(
            f"{len(broken)} broken{short_too} of {episodes} episodes of "
            f"'{source.path or source.name}' are more than --max_broken {self.max_broken:g} "
            f"allows (for example: {example}): restore them, leave them out with "
            f"--exclude{given}, or allow more"
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        total = sum(source.weight for source in self.sources)
        return {
            "max_broken": self.max_broken,
            "sources": [
                {
                    "name": source.name,
                    "path": source.path,
                    "views": source.views,
                    "weight": source.weight,
                    "share": source.weight / total,
                    "stride": source.stride,
                    "episodes": len(source.lengths),
                    "frames_a_view": int(source.lengths.sum()),
                    "held_out": len(self.held_out[number]),
                    "read": [
                        "decoded once" if isinstance(frames, FrameStore) else "on demand"
                        for frames in source.frames
                    ],
                    "excluded": source.excluded,
                    "too_short": self.short[number],
                    "broken": [
                        {"episode": e, "why": why} for e, why in sorted(self.broken[number].items())
                    ],
                    "triplets_replaced": self.replaced[number],
                }
                for number, source in enumerate(self.sources)
            ],
        }

    def summary(self) -> list[str]:
        """One line per source; it names the first few broken and short episodes."""
        lines = []
        for number, source in enumerate(self.sources):
            broken, short = list(self.broken[number].values()), self.short[number]
            line = (
                f"{source.name}: {len(source.lengths)} episodes, "
                f"{int(source.lengths.sum())} frames per view, "
                f"{len(self.held_out[number])} held out"
            )
            if broken:
                line += f"; {len(broken)} broken and left out: {'; '.join(broken[:EXAMPLES])}"
                line += " ..." if len(broken) > EXAMPLES else ""
            if short:
                line += f"; {len(short)} too short and left out: episodes "
                line += _numbers(short)
            if source.excluded:
                line += f"; excluded: episodes {_numbers(source.excluded)}"
            lines.append(line)
        return lines

    def write(self, run: str | Path, name: str = REPORT) -> None:
        """Write ``<run>/<name>``. Raises UserError if it cannot be written."""
        path = Path(run) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, self.to_dict())
        except OSError as error:
            raise UserError(
                f"cannot write '{path}' ({error.strerror}): choose another --run"
            ) from None


def _numbers(episodes: list[int]) -> str:
    """Episode numbers in words, the first few of many."""
    shown = ", ".join(map(str, episodes[:SHORT_EXAMPLES]))
    return f"{shown} ..." if len(episodes) > SHORT_EXAMPLES else shown
