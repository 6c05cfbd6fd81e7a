"""Typed configuration: dataclasses, filled from YAML presets and the command line by jsonargparse.

``python training/X.py --config training/configs/Y.yaml --some.field 3`` : the preset first, then
the flags, each checked against the dataclass. The same dataclasses go into a checkpoint's
config.json and come back by ``from_dict``.
"""

import dataclasses
from typing import Any, TypeVar

import jsonargparse

from alam_core.errors import UserError

T = TypeVar("T")


def parse_args(cls: type[T], description: str, args: list[str] | None = None) -> T:
    """Fill dataclass ``cls`` from ``--config FILE.yaml`` and flags; every field's docstring is its
    help.

    Raises UserError for an unknown flag or key, a bad value, and a file that is missing or no YAML.
    """
    parser = jsonargparse.ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML preset; flags after it win")
    parser.add_class_arguments(cls, as_group=False)
    try:
        namespace = parser.parse_args(args)
    except (jsonargparse.ArgumentError, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        lists = "; a list is written [a,b]" if "<class 'list'>" in text else ""
        raise UserError(f"{text}{lists}; --help lists every option") from None
    del namespace["config"]
    return cls(
        **{
            field.name: parser.instantiate(namespace)[field.name]
            for field in dataclasses.fields(cls)
        }
    )  # type: ignore[arg-type]


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: dict[str, Any], source: str = "config") -> T:
    """The strict inverse of ``to_dict``. Raises UserError naming ``source`` for an unknown, missing
    or ill-typed field.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, as_group=False)
    try:
        namespace = parser.parse_object(values)
    except (jsonargparse.ArgumentError, TypeError, KeyError) as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}") from None
    objects = parser.instantiate(namespace)
    return cls(**{field.name: objects[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]
