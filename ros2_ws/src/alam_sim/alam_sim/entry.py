"""The entry points of the nodes."""

from alam_common.stopping import entry

sim_node = entry("alam_sim.sim_node")
step_node = entry("alam_sim.step_node")
