"""Declares a node's parameters from one table with type, range and description, so that
``ros2 param describe`` documents them.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from alam_core.errors import UserError, one_line
from alam_core.files import expand_path

CLOCK = ParameterDescriptor(
    type=ParameterType.PARAMETER_BOOL,
    description="whether the node's time is that of /clock; else it is the wall clock",
    read_only=True,
)
KINDS = {bool: "bool", int: "integer", float: "float", str: "string", list: "list of strings"}


@dataclass(frozen=True)
class Parameter:
    """One parameter. Its type is that of ``default``.

    description: what it is, with its unit. least, most: smallest and largest allowed value, both
    required for a number, and for a list of numbers, which has as many as ``default``. choices: the
    allowed values of a string; empty: any. dynamic: whether it may be set while the node runs;
    otherwise it is read-only. path: whether the string is a path, in which ``~`` and variables such
    as ``$HOME`` are replaced.
    """

    default: bool | int | float | str | list[str] | list[float]
    description: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    path: bool = False

    @property
    def expected(self) -> str:
        """The allowed values as text, for error messages."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        kind = KINDS[type(self.default)]
        if isinstance(self.default, list) and self.least is not None:
            return f"a list of {len(self.default)} floats, each {self.least} to {self.most}"
        return f"{kind}, {self.least} to {self.most}" if self.least is not None else kind

    def descriptor(self) -> ParameterDescriptor:
        """The description for ROS. A number without a range is an AssertionError."""
        constraints = self.expected if self.choices or isinstance(self.default, list) else ""
        descriptor = ParameterDescriptor(
            description=self.description,
            additional_constraints=constraints,
            read_only=not self.dynamic,
        )
        if isinstance(self.default, float):
            assert self.least is not None and self.most is not None, self.description
            bounds = FloatingPointRange(from_value=float(self.least), to_value=float(self.most))
            descriptor.floating_point_range = [bounds]
        elif isinstance(self.default, int) and not isinstance(self.default, bool):
            assert self.least is not None and self.most is not None, self.description
            limits = IntegerRange(from_value=int(self.least), to_value=int(self.most), step=1)
            descriptor.integer_range = [limits]
        return descriptor


def declare_parameters(node: Node, table: Mapping[str, Parameter]) -> dict[str, Any]:
    """Declare every parameter of a table and return their values by name.

    Raises UserError with one line for a value of the wrong type or out of its range, for a path
    with a variable that is not set, and for a parameter that was given but is unknown: ROS would
    ignore a misspelt speed limit.

    ``use_sim_time``, which ROS declares, becomes read-only too: nodes read it when they start.
    """
    node.set_descriptor("use_sim_time", CLOCK)
    values = {name: _declare(node, name, parameter) for name, parameter in table.items()}
    for name in node._parameter_overrides:
        if not node.has_parameter(name) and not name.startswith("qos_overrides."):
            close = difflib.get_close_matches(name, table, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(table)}"
            raise UserError(f"{node.get_name()} has no parameter '{name}'; {hint}")
    return values


def _declare(node: Node, name: str, parameter: Parameter) -> Any:
    wrong = f"{node.get_name()}: parameter '{name}' must be {parameter.expected}"
    try:
        value = node.declare_parameter(name, parameter.default, parameter.descriptor()).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise UserError(f"{wrong}: {one_line(error)}") from error
    if parameter.choices and value not in parameter.choices:
        raise UserError(f"{wrong}, not '{value}'")
    if parameter.path:
        try:
            return expand_path(value)
        except UserError as error:
            raise UserError(f"{node.get_name()}: parameter '{name}': {error}") from None
    if not isinstance(parameter.default, list):
        return value
    if parameter.least is not None:
        assert parameter.most is not None, name
        within = all(parameter.least <= number <= parameter.most for number in value)
        if len(value) != len(parameter.default) or not within:
            raise UserError(f"{wrong}, not {list(value)}")
    return list(value)
