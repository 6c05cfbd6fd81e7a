"""What is known of each robot: names, limits, kinematics. Simulator, controller and data use it."""
