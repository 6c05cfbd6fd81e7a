"""The command alam: training, and the robot's ROS graph."""
