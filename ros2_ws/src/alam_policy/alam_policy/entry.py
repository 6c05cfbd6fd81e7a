"""The entry point of the node."""

from alam_common.stopping import entry

policy = entry("alam_policy.policy_node")
