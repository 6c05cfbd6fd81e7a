"""``alam arm ACTION``: what a person asks of the arm's controller, on machines without ``ros2``."""

import signal
import time

import rclpy
from alam_msgs.srv import PowerOff
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from alam_common.stopping import on_stop_signals
from alam_core.errors import UserError

WAIT = 20.0  # s of wall time for the service to appear
ANSWER = 15.0  # s of wall time for it to answer
CONFIRMATION = PowerOff.Request.CONFIRMATION
# Action -> service, its type and its request.
REQUESTS = {
    "enable": ("alam/arm/enable", SetBool, SetBool.Request(data=True)),
    "disable": ("alam/arm/enable", SetBool, SetBool.Request(data=False)),
    "hold": ("alam/arm/hold", Trigger, Trigger.Request()),
    "reset_fault": ("alam/arm/reset_fault", Trigger, Trigger.Request()),
    "power_off": ("alam/arm/power_off", PowerOff, PowerOff.Request(confirm=CONFIRMATION)),
}
ATTEMPTS = {"power_off": 1}  # the others may be repeated without harm: 2


def start_command(namespace: str) -> str:
    """What starts the graph of a namespace."""
    return f"alam up piper namespace:={namespace}" if namespace else "alam up piper"


def check_confirmation(action: str, confirm: str) -> None:
    """Raises UserError if ``power_off`` is not confirmed, or another action is."""
    if action != "power_off" and confirm:
        raise UserError(f"--confirm is for power_off, not for {action}")
    if action == "power_off" and confirm != CONFIRMATION:
        raise UserError(
            "the arm drops without power: support it, then run "
            f"'alam arm power_off --confirm \"{CONFIRMATION}\"'"
        )


def request(action: str, namespace: str, confirm: str = "") -> int:
    """Call the service of an action and print its answer. Returns 0 if it was fulfilled, else 1.

    namespace: of the graph. confirm: what the user typed to confirm ``power_off``. Raises UserError
    if that is wrong, or if the controller is not there or does not answer.
    """
    check_confirmation(action, confirm)
    name, service, message = REQUESTS[action]
    rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    on_stop_signals(signal.default_int_handler)
    node = Node(
        "alam_arm", namespace=namespace, enable_rosout=False, start_parameter_services=False
    )
    try:
        client = node.create_client(service, name)
        if not client.wait_for_service(WAIT):
            raise UserError(
                f"no service {client.service_name} within {WAIT:.0f} s: start the graph first, "
                f"with '{start_command(namespace)}' in another shell"
            )
        attempts = ATTEMPTS.get(action, 2)
        for _ in range(attempts):  # an answer may be lost while the nodes discover each other
            future = client.call_async(message)
            deadline = time.monotonic() + ANSWER
            while not future.done() and time.monotonic() < deadline:
                rclpy.spin_once(node, timeout_sec=0.1)
            if future.done():
                answer = future.result()
                print(f"{'done' if answer.success else 'refused'}: {answer.message}")
                return 0 if answer.success else 1
        raise UserError(f"{client.service_name} did not answer within {attempts * ANSWER:.0f} s")
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
