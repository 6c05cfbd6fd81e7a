#!/usr/bin/env bash
# Runs a command in a shell in which ROS and this workspace are sourced.
source /opt/ros/jazzy/setup.bash
source /alam/setup.bash
exec "$@"
