"""ALAM: algebraically consistent latent action models, without ROS.

The library imports torch and numpy only. Simulators are imported by the modules under ``sim/`` that
need them.
"""

__version__ = "0.2.0"
