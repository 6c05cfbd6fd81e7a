"""``alam arm ACTION``: what a person asks of the arm's controller, on machines without ``ros2``."""

import signal
import time

import rclpy
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from alam_core.errors import UserError

WAIT = 20.0  # s of wall time for the service to appear
ANSWER = 15.0  # s of wall time for it to answer
# Action -> service, its type and its request. Each may be repeated without harm.
REQUESTS = {
    "enable": ("alam/arm/enable", SetBool, SetBool.Request(data=True)),
    "disable": ("alam/arm/enable", SetBool, SetBool.Request(data=False)),
    "hold": ("alam/arm/hold", Trigger, Trigger.Request()),
    "reset_fault": ("alam/arm/reset_fault", Trigger, Trigger.Request()),
}


def request(action: str, namespace: str) -> int:
    """Call the service of an action and print its answer. Returns 0 if it was fulfilled, else 1.

    namespace: of the graph. Raises UserError if the controller is not there or does not answer.
    """
    name, service, message = REQUESTS[action]
    rclpy.init(args=[], signal_handler_options=rclpy.SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node = Node(
        "alam_arm", namespace=namespace, enable_rosout=False, start_parameter_services=False
    )
    try:
        client = node.create_client(service, name)
        if not client.wait_for_service(WAIT):
            raise UserError(
                f"no service {client.service_name} within {WAIT:.0f} s: start the graph first, "
                "with 'alam up piper' in another shell"
            )
        for _ in range(2):  # an answer may be lost while the nodes discover each other
            future = client.call_async(message)
            deadline = time.monotonic() + ANSWER
            while not future.done() and time.monotonic() < deadline:
                rclpy.spin_once(node, timeout_sec=0.1)
            if future.done():
                answer = future.result()
                print(f"{'done' if answer.success else 'refused'}: {answer.message}")
                return 0 if answer.success else 1
        raise UserError(f"{client.service_name} did not answer within {2 * ANSWER:.0f} s")
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
