"""ALAM: algebraically consistent latent action models, without ROS.

Importing it needs neither ROS nor a simulator: a world under ``sim/`` imports its simulator when it
is made.
"""

__version__ = "0.2.0"
