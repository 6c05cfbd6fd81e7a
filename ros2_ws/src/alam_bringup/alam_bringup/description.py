"""What a graph of nodes is: its nodes, its arguments, and how arguments are written and parsed."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alam_core.errors import UserError

Values = dict[str, Any]  # argument name -> value of the argument's type
ROS_NAME = r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*"


@dataclass(frozen=True)
class Argument:
    """An argument of a graph, given as name:=value. The default determines its type.

    choices: the allowed values; empty: any. bounds: smallest and largest allowed number. folder:
    whether the value must be an existing folder, absolute or relative to the working directory or
    the project's root. ros_name: whether the value must be the name of a topic or namespace.
    """

    name: str
    default: bool | int | float | str
    description: str
    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] | None = None
    folder: bool = False
    ros_name: bool = False

    @property
    def default_text(self) -> str:
        """The default as it is written on the command line."""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def parse(self, text: str) -> bool | int | float | str:
        """Convert a text to a value of the argument's type. Raises UserError if it is not valid."""
        value: bool | int | float | str = text
        try:
            if isinstance(self.default, bool):
                value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            elif isinstance(self.default, (int, float)):
                value = type(self.default)(text)
        except (KeyError, ValueError):
            kind = (
                "true or false"
                if isinstance(self.default, bool)
                else {int: "a whole number", float: "a number"}[type(self.default)]
            )
            raise UserError(
                f"{self.name}:={text} is not {kind} (default: {self.default_text})"
            ) from None
        if self.choices and text not in self.choices:
            raise UserError(f"{self.name}:={text} is not one of: {', '.join(self.choices)}")
        if self.bounds and not self.bounds[0] <= float(value) <= self.bounds[1]:
            raise UserError(
                f"{self.name}:={text} is not between {self.bounds[0]:g} and {self.bounds[1]:g}"
            )
        if self.ros_name and text != self.default and not re.fullmatch(ROS_NAME, text):
            raise UserError(
                f"{self.name}:={text} is not a ROS name: letters, digits and '_', "
                "in parts that are separated by '/' and do not begin with a digit"
            )
        return value


@dataclass(frozen=True)
class NodeSpec:
    """One node, run as a process.

    If a required node fails (exit code above 0: a wrong checkpoint, a port in use), the whole graph
    stops. If a node is killed by a signal or exits with 0, the others continue: the arm holds its
    position and reports the reason on /diagnostics.

    namespace: of the node and its topics, "" or an absolute name such as /left.
    """

    package: str
    executable: str
    name: str
    parameters: Values = field(default_factory=dict)
    required: bool = True
    namespace: str = ""


@dataclass(frozen=True)
class Graph:
    """A set of nodes that depends on arguments.

    build: returns the nodes, given the value of every argument. Raises UserError, for example for a
    missing checkpoint.
    """

    name: str
    description: str
    arguments: tuple[Argument, ...]
    build: Callable[[Values], list[NodeSpec]]

    def defaults(self) -> Values:
        return {argument.name: argument.default for argument in self.arguments}

    def help(self) -> str:
        """The description of the graph, and one line per argument with its default."""
        names = [f"  {argument.name}:={argument.default_text}" for argument in self.arguments]
        width = max(map(len, names)) + 2
        lines = [
            f"{name:<{width}}{argument.description}"
            for name, argument in zip(names, self.arguments, strict=True)
        ]
        return "\n".join([f"{self.name}: {self.description}", *lines])

    def values(self, texts: Mapping[str, str]) -> Values:
        """The value of every argument: parsed from ``texts`` (argument name -> text), or the
        default. Raises UserError for an unknown name or a wrong value.
        """
        known = {argument.name: argument for argument in self.arguments}
        for name in texts:
            if name not in known:
                raise UserError(
                    f"'{self.name}' has no argument '{name}'; its arguments are: {', '.join(known)}"
                )
        return self.defaults() | {name: known[name].parse(text) for name, text in texts.items()}


def split_assignments(words: Iterable[str]) -> dict[str, str]:
    """Argument name -> text, from words in ROS notation (``sim:=false``) or option notation
    (``--sim false``, ``--sim=false``).

    Raises UserError for a word in another notation, an option without a value and a repeated name.
    """
    texts: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, separator, text = word[2:].partition("=")
            if not separator and (text := next(rest, "")) == "":
                raise UserError(f"'{word}' needs a value: {word} VALUE")
        else:
            name, separator, text = word.partition(":=")
            if not separator or not name:
                raise UserError(f"'{word}' is not of the form name:=value or --name value")
        if name in texts:
            raise UserError(f"argument '{name}' is given twice")
        texts[name] = text
    return texts
