"""The controller node with a CAN adapter that can be pulled: while the file named by the first
argument exists, the bus fails and cannot be opened. Started by ``test_piper_controller.py``.
"""

import sys
import threading
import time
from pathlib import Path

import can

from alam_common.main import run_node
from alam_piper.arm_controller_node import ArmControllerNode

PULLED = Path(sys.argv.pop(1))
buses: list[can.BusABC] = []
open_any = can.Bus


def open_unless_pulled(*arguments, **options):
    if PULLED.exists():
        raise OSError("No such device")
    buses.append(open_any(*arguments, **options))
    return buses[-1]


def pull() -> None:
    """Close the buses as long as the adapter is pulled: sending and receiving are then errors."""
    while True:
        if PULLED.exists():
            while buses:
                buses.pop().shutdown()
        time.sleep(0.01)


can.Bus = can.interface.Bus = open_unless_pulled
threading.Thread(target=pull, daemon=True).start()
run_node(ArmControllerNode)
