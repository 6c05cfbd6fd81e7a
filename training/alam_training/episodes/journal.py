"""The journal of an evaluation: a file to which every episode is appended as it ends, so that an
interrupted evaluation continues where it stopped, even if it was killed.

The first line of the file holds the settings that determine an episode's outcome, every other line
one episode, in JSON.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alam_core.checkpoints import checkpoint_hash
from alam_core.errors import UserError, explain, one_line
from alam_training.episodes.evaluation import EXPERT, EvaluateConfig
from alam_training.episodes.metrics import EpisodeResult

# Settings that do not change the outcome of an episode, or are kept with each episode.
FREE = (
    "policy",
    "episodes",
    "first_seed",
    "workers",
    "ray",
    "device",
    "videos",
    "failure_videos",
    "video_folder",
    "result",
    "results",
    "journal",
    "compiled",
)


class Journal:
    """The journal in ``path``, which is made if it is missing. Raises UserError for a file of an
    evaluation with other settings, and for one that cannot be read or written.
    """

    def __init__(self, path: str | Path, config: EvaluateConfig) -> None:
        self._path = Path(path)
        settings = {k: v for k, v in asdict(config).items() if k not in FREE}
        self._settings = json.loads(json.dumps(settings))
        self._episodes: dict[tuple[str, int], EpisodeResult] = {}
        self._hashes: dict[str, str] = {}
        self._seeds = config.seeds
        try:
            self._read()
        except OSError as error:
            raise UserError(
                f"journal '{path}': {explain(error) or one_line(error)}: choose another file"
            ) from None

    def _read(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        data = self._path.read_bytes() if self._path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]  # a killed run may have left a part of a line
        lines = whole.decode("utf-8", "replace").splitlines()
        if not lines:
            self._path.write_text(json.dumps({"settings": self._settings}) + "\n")
            return
        try:
            found = json.loads(lines[0])["settings"]
            entries = [json.loads(line) for line in lines[1:]]
            results = {
                (entry.pop("policy"), entry["seed"]): EpisodeResult(**entry) for entry in entries
            }
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"journal '{self._path}' is not one of an evaluation ({one_line(error)}): choose "
                "another file"
            ) from None
        if found != self._settings:
            names = [n for n in self._settings if found.get(n) != self._settings[n]]
            was = found.get(names[0]) if names else None
            raise UserError(
                f"journal '{self._path}' is of an evaluation with {names[0] if names else 'other'} "
                f"{was!r}: choose another file"
            )
        self._episodes = results
        if len(whole) < len(data):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))

    def done(self, policy: str) -> list[EpisodeResult]:
        """The episodes of a policy that the journal has, of the seeds asked for. policy: its
        folder.
        """
        keys = [(self._hash(policy), seed) for seed in self._seeds]
        return [self._episodes[key] for key in keys if key in self._episodes]

    def add(self, policy: str, result: EpisodeResult) -> None:
        """Append an episode. Raises UserError if the file cannot be written."""
        entry: dict[str, Any] = {
            k: v for k, v in vars(result).items() if k not in ("frames", "fps")
        }
        line = json.dumps({"policy": self._hash(policy), **entry}) + "\n"
        try:
            with self._path.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            why = explain(error) or one_line(error)
            raise UserError(f"journal '{self._path}': {why}: free some space") from None

    def _hash(self, policy: str) -> str:
        if policy not in self._hashes:
            self._hashes[policy] = EXPERT if policy == EXPERT else checkpoint_hash(policy)
        return self._hashes[policy]
