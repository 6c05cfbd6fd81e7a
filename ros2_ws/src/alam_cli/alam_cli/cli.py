"""The ``alam`` command: up, echo, doctor, demo."""

import argparse
import sys
from collections.abc import Sequence

from alam_bringup.graph import GRAPHS, find_graph, split_assignments
from alam_core.errors import UserError, run_main


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all our programs do."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see '{self.prog} --help')")


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="alam", description="Runs and inspects the ALAM stack.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    up = commands.add_parser(
        "up",
        help="start a graph of nodes",
        description="Starts every node of a graph and stops them all on Ctrl-C. Arguments are given as name:=value.",
        epilog="graphs and their arguments:\n\n"
        + "\n\n".join(graph.help() for graph in GRAPHS.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    up.add_argument("graph", metavar="GRAPH", help=f"one of: {', '.join(GRAPHS)}")
    up.add_argument(
        "assignments", nargs="*", metavar="name:=value", help="arguments of the graph, see below"
    )
    echo = commands.add_parser(
        "echo",
        help="print the messages of a topic",
        description="Prints the messages of a topic as YAML.",
    )
    echo.add_argument("topic", metavar="TOPIC")
    echo.add_argument("--once", action="store_true", help="stop after one message")
    echo.add_argument(
        "--timeout",
        type=float,
        default=0.0,
        metavar="S",
        help="give up if nothing comes for so long; 0: wait for ever",
    )
    echo.add_argument("--full", action="store_true", help="print long arrays in full")
    commands.add_parser("doctor", help="say what is here, what is missing and how to get it")
    commands.add_parser("demo", help="run the demo and measure it", add_help=False)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    if arguments and arguments[0] == "demo":  # it has arguments of its own
        from alam_demo import demo

        return demo.main(list(arguments[1:])) or 0
    options = make_parser().parse_args(arguments)
    if options.command == "up":
        from alam_cli.up import up

        graph = find_graph(options.graph)
        return up(graph, graph.values(split_assignments(options.assignments)))
    if options.command == "echo":
        from alam_cli.echo import echo

        return echo(options.topic, once=options.once, timeout=options.timeout, full=options.full)
    from alam_cli.doctor import doctor

    return doctor()


def main() -> None:
    """Entry point of the console script."""
    run_main(lambda: run(sys.argv[1:]))
