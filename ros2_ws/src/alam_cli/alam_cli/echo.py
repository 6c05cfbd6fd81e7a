"""``alam echo TOPIC``: prints messages of any installed type as YAML."""

import importlib
import os
import signal
import sys
import time
from typing import Any

import numpy as np
import rclpy
import yaml
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from alam_common.stopping import on_stop_signals
from alam_core.errors import UserError

LONG = 16  # number of elements of an array that are printed unless ``--full`` is given


def message_class(type_name: str) -> type:
    """The class of a message type such as ``std_msgs/msg/String``. Raises UserError if its package
    is not installed.
    """
    package, *middle, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(".".join([package, *middle])), name)
    except (ImportError, AttributeError):
        raise UserError(
            f"message type {type_name} is not installed here: "
            f"source the workspace that has package '{package}'"
        ) from None


def to_plain(value: Any, full: bool = False) -> Any:
    """A message as dictionaries, lists and scalars. Longer arrays are cut to ``LONG`` elements
    unless ``full`` is set.
    """
    if hasattr(value, "get_fields_and_field_types"):
        return {
            name: to_plain(getattr(value, name), full)
            for name in value.get_fields_and_field_types()
        }
    if isinstance(value, (bytes, bytearray)):
        value = list(value)
    if hasattr(value, "__len__") and not isinstance(value, str):
        shown = value if full or len(value) <= LONG else value[:LONG]
        plain = [to_plain(item, full) for item in shown]
        return plain if len(plain) == len(value) else [*plain, f"... ({len(value)} in all)"]
    return value.item() if isinstance(value, np.generic) else value


class _Dumper(yaml.SafeDumper):
    """Writes each field on its own line, and a list of numbers on one line."""


def _represent_list(dumper: _Dumper, items: list) -> yaml.Node:
    return dumper.represent_sequence(
        "tag:yaml.org,2002:seq",
        items,
        flow_style=not any(isinstance(item, (dict, list)) for item in items),
    )


_Dumper.add_representer(list, _represent_list)


def to_yaml(plain: Any) -> str:
    """The result of ``to_plain`` as YAML, with fields in the order of the message."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=140)


def find_type(node: Node, topic: str, deadline: float) -> str:
    """Wait for a publisher of a topic and return the name of its type.

    Raises UserError if there is none at ``deadline`` (s, as time.monotonic()), and for a topic with
    several types.
    """
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    notice = time.monotonic() + 2
    while True:
        types = dict(node.get_topic_names_and_types()).get(topic, [])
        if len(types) > 1:
            raise UserError(f"{topic} is used with several types: {', '.join(types)}")
        if types:
            return types[0]
        if time.monotonic() > deadline:
            raise UserError(
                f"no publisher of {topic} in ROS domain {domain}: is the graph running?"
            )
        if time.monotonic() > notice:
            print(f"# waiting for a publisher of {topic} in ROS domain {domain}", flush=True)
            notice = float("inf")
        rclpy.spin_once(node, timeout_sec=0.1)


def offered_qos(node: Node, topic: str) -> QoSProfile:
    """The strictest QoS of a subscription that is compatible with all publishers of the topic."""
    offers = [info.qos_profile for info in node.get_publishers_info_by_topic(topic)]
    reliable = bool(offers) and all(
        offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers
    )
    durable = bool(offers) and all(
        offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers
    )
    return QoSProfile(
        depth=10,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if durable else DurabilityPolicy.VOLATILE,
    )


def echo(topic: str, once: bool = False, timeout: float = 0.0, full: bool = False) -> int:
    """Print the messages of a topic until Ctrl-C, or only the first one if ``once``.

    Also ends when the reader of its output does.

    Raises UserError after ``timeout`` s without a message; 0 waits forever.
    """
    if not topic.startswith("/"):
        topic = f"/{topic}"
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    on_stop_signals(signal.default_int_handler)
    node = Node(f"alam_echo_{os.getpid()}", enable_rosout=False, start_parameter_services=False)
    last = time.monotonic()
    seen = 0

    def show(message: Any) -> None:
        nonlocal last, seen
        if once and seen:
            return
        last = time.monotonic()
        seen += 1
        print(to_yaml(to_plain(message, full)), end="---\n", flush=True)

    def deadline() -> float:
        return last + timeout if timeout > 0 else float("inf")

    try:
        type_name = find_type(node, topic, deadline())
        node.create_subscription(message_class(type_name), topic, show, offered_qos(node, topic))
        while not (once and seen):
            rclpy.spin_once(node, timeout_sec=0.1)
            if time.monotonic() > deadline():
                raise UserError(f"no message on {topic} ({type_name}) for {timeout:g} s")
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except BrokenPipeError:  # the reader of our output has ended, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
