"""The main function of a node: Ctrl-C and SIGTERM end it with exit code 0, an error that a person
can act on with one line and exit code 2.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from alam_core.errors import UserError, explain

OWN_CLOCK = ("--ros-args", "-r", "/clock:=clock")
N = TypeVar("N", bound=Node)


def _initialise(args: list[str]) -> None:
    """Initialise ROS. Raises UserError for arguments that it cannot parse."""
    try:
        # rclpy takes simulated time from /clock: in a namespace, from that of the own graph.
        rclpy.init(args=[*args, *OWN_CLOCK])
    except RuntimeError as error:  # the base class of rclpy's errors
        said = str(error).removeprefix("failed to initialize rcl: ").split(", at /")[0]
        raise UserError(
            f"wrong ROS arguments: {said} (a remapping is -r from:=to, a namespace "
            "-r __ns:=/name, a parameter -p name:=value)"
        ) from error


def run_node(
    make_node: Callable[[], N],
    spin: Callable[[N, Executor], None] | None = None,
    args: list[str] | None = None,
) -> None:
    """Initialise ROS, build the node, spin it until a signal stops it, clean up and exit.

    If the node has a method ``close()``, it is called before the node is destroyed. ``spin(node,
    executor)`` replaces ``executor.spin()``. Wrong ROS arguments, and a UserError, an OSError that
    the machine causes, or a parameter of the wrong type, raised while building the node or in one
    of its callbacks, end the process with one line on stderr and code 2.
    """
    node: N | None = None
    code = 0
    try:
        _initialise(sys.argv if args is None else args)
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if spin is None:
            executor.spin()
        else:
            spin(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    except Exception as error:
        line = explain(error)
        if line is not None:
            print(f"error: {line}", file=sys.stderr, flush=True)
            code = 2
        elif rclpy.ok():  # the shutdown of ROS may make a running callback fail
            raise
    finally:
        if node is not None:
            close = getattr(node, "close", None)
            if close is not None:
                close()
            node.destroy_node()
        rclpy.try_shutdown()
    sys.exit(code)
