"""Typed configuration: dataclasses that jsonargparse fills from YAML presets and the command line.

``python training/X.py --config training/configs/Y.yaml --some.field 3`` reads the preset first,
then the flags; each value is checked against the dataclass, and ``~`` and variables such as
``$HOME`` in it are replaced. ``to_dict`` and ``from_dict`` store the same dataclasses in a
checkpoint's config.json.
"""

import dataclasses
import re
import sys
from typing import Any, TypeVar

import jsonargparse

from alam_core.errors import UserError, listing, one_line
from alam_core.files import expand_path

T = TypeVar("T")

# How jsonargparse reports a value of a wrong type, and one that is not among those of a Literal.
_NUMBER = re.compile(
    r'Parser key "([^"]+)": Expected a <class \'(int|float|bool)\'>\. Got value: (\S+)'
)
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_CHOICE = re.compile(
    r'Parser key "([^"]+)": Expected a typing\.Literal\[([^\]]*)\]\. Got value: (\S+)'
)


def parse_args(cls: type[T], description: str, args: list[str] | None = None) -> T:
    """Fill dataclass ``cls`` from ``--config FILE.yaml`` and flags; the docstring of ``cls`` gives
    the help texts.

    args: the command line; None takes that of this process. Raises UserError for an unknown flag or
    key, an invalid value, a variable that is not set, and a file that is missing or not YAML.
    """
    parser = jsonargparse.ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML preset; later flags override it")
    parser.add_class_arguments(cls, as_group=False)
    try:
        words = sys.argv[1:] if args is None else args
        namespace = parser.parse_args([expand_path(word) for word in words])  # --config=$HOME/...
    except (jsonargparse.ArgumentError, OSError, UnicodeDecodeError) as error:
        text = _one_line(error)
        if "<unicode string>" in text:  # PyYAML does not know the file's name
            files = [word.removeprefix("--config=") for word in words if ".y" in word]
            text = f"{listing(files)} is not YAML ({text.replace('<unicode string>', 'it')})"
        lists = "; a list is written [a,b]" if "<class 'list'>" in text else ""
        raise UserError(f"{text}{lists}; --help lists every option") from None
    del namespace["config"]
    for name, value in vars(namespace).items():
        try:
            namespace[name] = _expanded(value)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    return _build(cls, parser, namespace)


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as plain JSON values."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: dict[str, Any], source: str = "config") -> T:
    """The strict inverse of ``to_dict``.

    source: where the values come from, for the error message. Raises UserError for a field that is
    unknown, missing or of the wrong type.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, as_group=False)
    try:
        namespace = parser.parse_object(values)
    except (jsonargparse.ArgumentError, TypeError, KeyError) as error:
        raise UserError(
            f"{source}: {_one_line(error)}; is it of another version of this project?"
        ) from None
    return _build(cls, parser, namespace)


def _build(cls: type[T], parser: jsonargparse.ArgumentParser, values: jsonargparse.Namespace) -> T:
    objects = parser.instantiate(values)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: objects[name] for name in names})


def _expanded(value: Any) -> Any:
    """A parsed value in which every text is expanded as a path; other texts have no ``~`` or
    variable in them.
    """
    if isinstance(value, str):
        return expand_path(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_expanded, value))
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    if isinstance(value, jsonargparse.Namespace):
        return jsonargparse.Namespace(**_expanded(vars(value)))
    return value


def _one_line(error: Exception) -> str:
    """jsonargparse's message as one line; bad values are worded like this project's errors."""
    text = one_line(error)

    def choices(match: re.Match[str]) -> str:
        key, values, given = match.groups()
        return f"{key} is '{given}': choose one of {values.replace(chr(39), '')}"

    def numbers(match: re.Match[str]) -> str:
        key, kind, given = match.groups()
        return f"{key} is '{given}': give {_KINDS[kind]}"

    return _NUMBER.sub(numbers, _CHOICE.sub(choices, text))
