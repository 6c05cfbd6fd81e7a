"""The entry point of the node."""

from alam_common.stopping import entry

sim_node = entry("alam_sim.sim_node")
