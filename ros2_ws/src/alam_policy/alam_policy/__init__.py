"""The policy as a ROS node."""
