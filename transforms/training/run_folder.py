"""The folder of a training run. It documents the run, and a killed run can resume from it.

config.json              the network, the recipe and the data set
environment.json         the versions, the device and the command of the last start
log.jsonl                a line per tick: images, losses, images/s
tensorboard/             the same, for TensorBoard
lock.json                while the run is at work: the process that does it
photographs.png          a grid of patches that it learns from
samples-<images>.png     a grid of fixed windows of fixed worlds
strip-<images>.png       1024×256 of one fixed world
checkpoint.safetensors   the averaged generator, which render takes
training.safetensors     all that is needed to resume training
previous.safetensors     the checkpoint of the previous tick, with previous.training.safetensors
best.safetensors         the checkpoint with the best measure, if one is computed
"""

import dataclasses
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.checkpoint import Provenance
from model.config import DETAIL, detail_training_config, generator_config, training_config
from model.errors import InputError
from transforms.storage.files import (
    exists,
    join,
    list_files,
    read_bytes,
    read_json,
    remove,
    remove_leftovers,
    write_bytes,
    write_json,
)
from transforms.storage.tensor_files import read_tensors

CONFIG, ENVIRONMENT, LOG, CURVES = "config.json", "environment.json", "log.jsonl", "tensorboard"
CHECKPOINT, STATE = "checkpoint.safetensors", "training.safetensors"
PREVIOUS, PREVIOUS_STATE, BEST = "previous.safetensors", "previous.training.safetensors", "best.safetensors"

SHOWN = re.compile(r"(?:samples|strip)-(\d+)\.png|events\.out\.tfevents\.(\d+)")
"""The names of files that show one tick, with the number of images seen."""

MAY_CHANGE = ("init", "version", "training.accumulate", "training.precision")
"""Settings that may change when a run is resumed, because they affect how it computes, not what."""


LogEntry = dict[str, float]
"""A line of log.jsonl: numbers by name."""


class RunConfig(Provenance):
    """The content of config.json: what a checkpoint says of its origin, the network and the recipe.

    Attributes:
        generator: the fields of the `GeneratorConfig`.
        training: the fields of the `TrainingConfig`, or of the `DetailTrainingConfig`.
    """

    generator: dict[str, Any]
    training: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A training run's folder at an fsspec URL."""

    url: str

    def begin(self, config: RunConfig, resume: bool) -> None:
        """Starts a run here, or checks that the run here is the one to resume.

        Raises:
            InputError: there is a run already and it is not to be resumed; or there is none, or another one, to resume.
        """
        if not resume:
            if any(exists(join(self.url, name)) for name in (CONFIG, STATE, CHECKPOINT)):
                raise InputError(f"{self.url} already holds a run; add --resume to continue, or choose another --out")
            write_json(join(self.url, CONFIG), config)
            return
        stored = self.read_config()
        known = with_checksum(stored, config)
        before, given = (flat(upgraded(x)) for x in (known, json.loads(json.dumps(config))))
        changed = sorted(key for key in given if key not in MAY_CHANGE and before.get(key) != given[key])
        if changed:
            cure = "resume with the same, or start another run with --init"
            raise InputError(f"{self.url} was started with other settings ({', '.join(changed)}); {cure}")
        if known != stored:
            write_json(join(self.url, CONFIG), known)

    def read_config(self) -> dict[str, Any]:
        """Reads the configuration of the run here.

        Raises:
            InputError: there is no run, or its configuration is damaged.
        """
        path = join(self.url, CONFIG)
        config = read_json(path) if exists(path) else None
        if config is None and exists(join(self.url, STATE)):
            raise InputError(f"{path} is missing; copy it back, or start a new run in another folder with --init")
        if isinstance(config, dict) and not all(
            isinstance(config.get(name), dict) for name in ("generator", "training")
        ):
            raise InputError(f"{path} is damaged; start a new run in another folder with --init")
        if not isinstance(config, dict):
            raise InputError(f"{self.url} holds no run to resume; omit --resume to start one")
        return config

    def read_state(self) -> bytes:
        """Reads the training state.

        Raises:
            InputError: there is no training state.
        """
        path = join(self.url, STATE)
        if not exists(path):
            at = join(self.url, CHECKPOINT)
            cure = f"start one in another folder with --init {at}" if exists(at) else "remove it and start again"
            raise InputError(f"{self.url} holds a run without a state to resume from ({STATE} is missing); {cure}")
        return read_tensors(path, "the state")

    def read_log(self, images: int) -> list[LogEntry]:
        """Reads the log up to a number of images, without lines beyond an interrupted run's last state."""
        path = join(self.url, LOG)
        content = read_bytes(path) if exists(path) else b""
        try:
            entries = [json.loads(line) for line in content.splitlines()]
            if not all(is_number(value) for entry in entries for value in entry.values()):
                raise ValueError("logged values are numbers")
            return [entry for entry in entries if entry["images"] <= images]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{path} is damaged; remove it to continue with a new log") from None

    def write_log(self, entries: list[LogEntry]) -> None:
        """Writes the whole log, because object stores cannot append."""
        write_bytes(join(self.url, LOG), "".join(json.dumps(entry) + "\n" for entry in entries).encode())

    def read_environment(self) -> dict[str, object]:
        """Reads the environment of the run's last start, as far as possible; it is only for people."""
        try:
            environment = read_json(join(self.url, ENVIRONMENT))
        except (FileNotFoundError, InputError):
            environment = None
        return environment if isinstance(environment, dict) else {}

    def write_environment(self, environment: Mapping[str, object]) -> None:
        """Writes the environment of the run's last start."""
        write_json(join(self.url, ENVIRONMENT), environment)

    def write_curves(self, images: int, events: bytes) -> None:
        """Writes one tick's values for TensorBoard, in a separate file."""
        write_bytes(join(self.url, curves_name(images)), events)

    def drop_beyond(self, images: int) -> None:
        """Removes files that an interrupted run wrote beyond its last state, and files that it did not finish."""
        remove_leftovers(self.url, CURVES)
        for folder in (self.url, join(self.url, CURVES)):
            for name in list_files(folder):
                match = SHOWN.fullmatch(name)
                if match and int(match[1] or match[2]) > images:
                    remove(join(folder, name))

    def has(self, name: str) -> bool:
        """Returns whether a file exists in the folder."""
        return exists(join(self.url, name))

    def write_checkpoint(self, checkpoint: bytes) -> None:
        """Writes only the generator, when the state is already there."""
        write_bytes(join(self.url, CHECKPOINT), checkpoint)

    def write_state(self, checkpoint: bytes, state: bytes) -> None:
        """Writes the generator and then the training state, from which a run resumes; keeps the previous ones."""
        for name, previous in ((CHECKPOINT, PREVIOUS), (STATE, PREVIOUS_STATE)):
            if exists(join(self.url, name)):
                write_bytes(join(self.url, previous), read_bytes(join(self.url, name)))
        write_bytes(join(self.url, CHECKPOINT), checkpoint)
        write_bytes(join(self.url, STATE), state)

    def write_best(self, checkpoint: bytes) -> None:
        """Writes the generator with the best measure."""
        write_bytes(join(self.url, BEST), checkpoint)

    def write_picture(self, name: str, pixels: npt.NDArray[np.uint8]) -> str:
        """Writes uint8 [h,w,3] as PNG; returns its URL."""
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        write_bytes(join(self.url, name), buffer.getvalue())
        return join(self.url, name)


def curves_name(images: int) -> str:
    """Returns the name of the file of one tick's values."""
    return f"{CURVES}/events.out.tfevents.{images:010d}"


def is_number(value: object) -> bool:
    """Returns whether a value is a number; bool does not count."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def with_checksum(stored: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Returns a run's stored configuration; one by an earlier version gets the checksum of the set as it is today."""
    data = stored.get("data")
    if not isinstance(data, dict) or "sha256" in data:
        return stored
    return {**stored, "data": {**data, "sha256": config["data"]["sha256"]}}


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the settings that an earlier version did not write to a run's configuration, with today's defaults."""
    generator = generator_config(config["generator"])
    training = (detail_training_config if DETAIL in config else training_config)(config["training"])
    parts = {"generator": dataclasses.asdict(generator), "training": dataclasses.asdict(training)}
    return {**config, **json.loads(json.dumps(parts))}


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Lists the training settings singly, under their names after a dot; all else is unchanged."""
    settings = {f"training.{name}": value for name, value in config["training"].items()}
    return {**{name: value for name, value in config.items() if name != "training"}, **settings}


def state_beside(checkpoint_url: str) -> str:
    """Returns the place of the training state of a checkpoint of a run or release, if it was kept."""
    folder, slash, name = checkpoint_url.rpartition("/")
    beside = STATE if name == CHECKPOINT else name.removesuffix(".safetensors") + ".training.safetensors"
    return folder + slash + beside
