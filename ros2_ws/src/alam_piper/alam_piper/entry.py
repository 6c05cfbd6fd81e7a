"""The entry point of the node."""

from alam_common.stopping import entry

arm_controller = entry("alam_piper.arm_controller_node")
