#!/usr/bin/env bash
# Runs a command in a shell that sourced ROS and this workspace.
source /opt/ros/jazzy/setup.bash
source /alam/setup.bash
exec "$@"
