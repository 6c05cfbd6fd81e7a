"""A simulated world as a ROS node."""
