"""Robots: names, limits and kinematics, shared by simulator, controller, data and checks."""
