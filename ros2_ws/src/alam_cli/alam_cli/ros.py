"""The commands that need ROS: ``alam up``, ``run``, ``arm``, ``jog``, ``echo``, ``can``,
``doctor``, ``emulate-piper`` and ``demo``.

``python -m alam_cli.ros COMMAND`` runs one of them; the workspace must be sourced.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from alam_cli.parser import Parser
from alam_core.errors import UserError, run_main

ROS_COMMANDS = {
    "up": "start a graph of nodes, simulated or on the real arm",
    "run": "send a task to the running graph",
    "arm": "enable, hold or disable the arm, reset its fault, or cut its power",
    "jog": "move one joint of the arm by a little, slowly",
    "echo": "print the messages of a topic",
    "can": "bring the CAN interface of a real arm up",
    "doctor": "report what is installed, what is missing and how to install it",
    "emulate-piper": "emulate an arm on a CAN bus, for any program that drives a Piper",
    "demo": "run the shipped policy in simulation, film it and count successes",
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the ROS commands, except ``demo``, which parses its own arguments."""
    from alam_bringup.graph import GRAPHS
    from alam_piper.bus import INTERFACES
    from alam_piper.faults import FAULTS

    parser = Parser(prog="alam", description="Runs and inspects the ROS graph.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    up = commands.add_parser(
        "up",
        help=ROS_COMMANDS["up"],
        description="Starts all nodes of a graph; Ctrl-C stops them. Write an argument of the "
        "graph as --name value, or as name:=value like for ros2 launch.",
        epilog="graphs and their arguments:\n\n"
        + "\n\n".join(graph.help() for graph in GRAPHS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up.add_argument("graph", metavar="GRAPH", help=f"one of: {', '.join(GRAPHS)}")
    up.add_argument(
        "assignments",
        nargs=argparse.REMAINDER,
        metavar="--name value",
        help="arguments of the graph, see below",
    ).required = False  # so that the message about a missing graph does not name it
    run_parser = commands.add_parser(
        "run",
        help=ROS_COMMANDS["run"],
        description="Sends a task to the running graph and waits for its end; Ctrl-C cancels it.",
    )
    run_parser.add_argument("instruction", metavar="INSTRUCTION", help="what to do, in quotes")
    run_parser.add_argument(
        "--time_limit",
        type=float,
        default=0.0,
        metavar="S",
        help="s of ROS time before the policy gives up; 0: the policy node's default",
    )
    run_parser.add_argument(
        "--enable", action="store_true", help="enable the arm first: it moves; a fault is not reset"
    )
    run_parser.add_argument("--namespace", default="", help="namespace of the graph")
    arm = commands.add_parser(
        "arm",
        help=ROS_COMMANDS["arm"],
        description="Calls a service of the running graph's arm controller and prints its answer.",
        epilog="actions:\n"
        "  enable       power the motors; the arm stays where it is\n"
        "  hold         brake and hold; nothing moves the arm until it is enabled again\n"
        "  disable      brake, then send nothing more; the motors stay powered\n"
        "  reset_fault  leave FAULT once its cause is removed; then enable the arm again\n"
        "  power_off    cut the motors' power: the arm drops",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arm.add_argument("action", choices=["enable", "hold", "disable", "reset_fault", "power_off"])
    arm.add_argument(
        "--confirm",
        default="",
        metavar="TEXT",
        help="for power_off, which makes the arm drop: 'the arm is supported'",
    )
    arm.add_argument("--namespace", default="", help="namespace of the graph")
    jog_parser = commands.add_parser(
        "jog",
        help=ROS_COMMANDS["jog"],
        description="Moves one joint by a little, slowly; Ctrl-C stops it. The arm must be enabled "
        "and must not execute a task.",
    )
    jog_parser.add_argument(
        "--joint", required=True, metavar="N", help="1 to 6, joint1 to joint6, or gripper"
    )
    jog_parser.add_argument(
        "--by",
        type=float,
        required=True,
        metavar="RAD",
        help="rad, at most 0.2; for the gripper m, at most 0.02",
    )
    jog_parser.add_argument("--namespace", default="", help="namespace of the graph")
    echo = commands.add_parser(
        "echo",
        help=ROS_COMMANDS["echo"],
        description="Prints the messages of a topic as YAML; Ctrl-C ends it.",
    )
    echo.add_argument("topic", metavar="TOPIC", help="such as /alam/arm/status")
    echo.add_argument("--once", action="store_true", help="stop after one message")
    echo.add_argument(
        "--timeout",
        type=float,
        default=0.0,
        metavar="S",
        help="stop with an error after S seconds without a message; 0: wait forever",
    )
    echo.add_argument("--full", action="store_true", help="print long arrays in full")
    can = commands.add_parser(
        "can",
        help=ROS_COMMANDS["can"],
        description="Brings a CAN interface up at the arm's bit rate; does nothing if it is.",
    )
    can.add_argument("action", choices=["up"], metavar="up")
    can.add_argument(
        "interface",
        nargs="?",
        default="",
        metavar="INTERFACE",
        help="such as can0; needed only if there are several",
    )
    commands.add_parser(
        "doctor",
        help=ROS_COMMANDS["doctor"],
        description="Checks the set-up, and what only a real arm needs: OK; MISSING, if the demo "
        "needs it; - for what is not needed everywhere. The exit code is 0 if the demo can run.",
    )
    emulate = commands.add_parser(
        "emulate-piper",
        help=ROS_COMMANDS["emulate-piper"],
        description="Emulates an arm with simulated physics on a CAN bus of this host, in real\n"
        "time; Ctrl-C ends it. This project's programs reach it by udp_multicast with the\n"
        "same port, any other program by '--can_interface slcan'. With piper_sdk:\n"
        "  piper = C_PiperInterface_V2(can_auto_init=False)\n"
        "  piper.CreateCanBus('socket://127.0.0.1:PORT', bustype='slcan', judge_flag=False)\n"
        "  piper.ConnectPort()",
        epilog="faults:\n" + "\n".join(f"  {n:<18}{f.what}" for n, f in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    emulate.add_argument(
        "--can_interface",
        choices=[name for name in INTERFACES if name != "virtual"],
        default="udp_multicast",
        help="python-can interface; slcan is served on TCP (default: %(default)s)",
    )
    emulate.add_argument(
        "--can",
        default="",
        metavar="CHANNEL",
        help="a multicast address, socket://127.0.0.1:PORT or can0 (default: the interface's own)",
    )
    emulate.add_argument(
        "--can_port",
        type=int,
        default=43113,
        metavar="PORT",
        help="UDP port of udp_multicast, TCP port of slcan (default: %(default)s)",
    )
    emulate.add_argument(
        "--viewer", choices=("yes", "no"), default="no", help="show the arm in a window"
    )
    emulate.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME@SECONDS",
        help="begin a fault after SECONDS, see below; may be repeated",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Raises UserError for wrong arguments, and if the workspace cannot be imported.
    """
    try:
        from alam_bringup.description import ROS_NAME, split_assignments
        from alam_bringup.graph import find_graph
    except ImportError as error:
        raise UserError(
            f"the ROS workspace cannot be imported ({error}): "
            "run 'make setup', then 'source setup.bash'"
        ) from None
    if arguments and arguments[0] == "demo":
        from alam_demo import demo

        return demo.main(list(arguments[1:]))
    options, unknown = make_parser().parse_known_args(arguments)
    if unknown:
        quotes = "; write the instruction in quotes" if options.command == "run" else ""
        raise UserError(
            f"unrecognized arguments: {' '.join(unknown)}{quotes} "
            f"(see 'alam {options.command} --help')"
        )
    namespace = getattr(options, "namespace", "")
    if namespace and not re.fullmatch(ROS_NAME, namespace):
        raise UserError(f"--namespace '{namespace}' is not a ROS name, such as left")
    if options.command == "up":
        from alam_cli.up import up

        graph = find_graph(options.graph)
        if any(word in ("-h", "--help") for word in options.assignments):
            print(f"usage: alam up {graph.name} [--name value ...]\n\n{graph.help()}")
            return 0
        return up(graph, graph.values(split_assignments(options.assignments)))
    if options.command == "run":
        from alam_cli.run import run_task

        return run_task(options.instruction, options.time_limit, options.enable, options.namespace)
    if options.command == "arm":
        from alam_cli.arm import request

        return request(options.action, options.namespace, options.confirm)
    if options.command == "jog":
        from alam_cli.jog import jog

        return jog(options.joint, options.by, options.namespace)
    if options.command == "can":
        from alam_cli.can_up import can_up

        return can_up(options.interface)
    if options.command == "echo":
        from alam_cli.echo import echo

        return echo(options.topic, once=options.once, timeout=options.timeout, full=options.full)
    if options.command == "emulate-piper":
        from alam_piper.emulate import bus_config, emulate, parse_fault

        config = bus_config(options.can_interface, options.can, options.can_port)
        faults = [parse_fault(text) for text in options.fault]
        return emulate(config, faults, viewer=options.viewer == "yes")
    from alam_cli.doctor import doctor

    return doctor()


if __name__ == "__main__":
    run_main(lambda: run(sys.argv[1:]))
