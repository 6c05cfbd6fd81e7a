"""The main function of a node: Ctrl-C, SIGTERM and SIGHUP end it with exit code 0, an error ends it
with one line in the log: code 2 if a person can act on it, code 1 and a traceback if it is a bug.
"""

import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from alam_common.stopping import StopRequest
from alam_core.errors import UserError, explain, one_line

OWN_CLOCK = ("--ros-args", "-r", "/clock:=clock")
ROUND = 0.1  # s (wall time) after which a node without work looks for a request to stop
N = TypeVar("N", bound=Node)


def _initialise(args: list[str]) -> None:
    """Initialise ROS. Raises UserError for arguments that it cannot parse."""
    try:
        # rclpy takes simulated time from /clock: in a namespace, from that of the own graph.
        # Its signal handlers would shut ROS down before a node could tell why it stops.
        rclpy.init(args=[*args, *OWN_CLOCK], signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # the base class of rclpy's errors
        said = str(error).removeprefix("failed to initialize rcl: ").split(", at /")[0]
        raise UserError(
            f"wrong ROS arguments: {said} (a remapping is -r from:=to, a namespace "
            "-r __ns:=/name, a parameter -p name:=value)"
        ) from error


def _spin_once(node: Node, executor: Executor) -> None:
    executor.spin_once(timeout_sec=ROUND)


def run_node(
    make_node: Callable[[], N],
    step: Callable[[N, Executor], None] = _spin_once,
    args: list[str] | None = None,
) -> None:
    """Initialise ROS, build the node, run it until a signal stops it, clean up and exit.

    step: called again and again; by default it waits for work and executes it. If the node has a
    method ``close()``, it is called before the node is destroyed, while the node can still publish.

    Wrong ROS arguments, and a UserError, an OSError that the machine causes, or a parameter of the
    wrong type, raised while building the node or in one of its callbacks, end the process with one
    line and code 2. Any other error ends it with a traceback, one line and code 1.
    """
    stop = StopRequest()
    node: N | None = None
    failure: Exception | None = None
    code = 0
    try:
        _initialise(sys.argv if args is None else args)
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        stop.interrupts = False
        while not stop.made:
            step(node, executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        failure = None if stop.made else error  # else a consequence of the interruption
    finally:
        stop.interrupts = False
        try:
            if node is not None and hasattr(node, "close"):
                node.close()
        finally:
            if failure is not None:  # the last line of the node's output
                code = _report(failure, node)
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    sys.exit(code)


def _report(error: Exception, node: Node | None) -> int:
    """Say in one line why the node ends, in its log if it was built. Returns the exit code."""
    if isinstance(error, (InvalidParameterTypeException, InvalidParameterValueException)):
        line: str | None = one_line(error)
    else:
        line = explain(error)
    if line is None:
        traceback.print_exception(error)
        said = f"error: a bug ended the node: {type(error).__name__}: {one_line(error)}"
    else:
        said = f"error: {line}"
    if node is None:
        print(said, file=sys.stderr, flush=True)
    else:
        node.get_logger().fatal(said)
    return 1 if line is None else 2
