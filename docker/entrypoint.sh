#!/usr/bin/env bash
# Runs a command in a shell that is ready.
source /opt/ros/jazzy/setup.bash
source /alam/setup.bash
exec "$@"
