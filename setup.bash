# Prepares this shell for the project. Usage, after 'make setup': source setup.bash
# Variables that are set with ':-' below keep a value they already have.
ALAM_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
_install=$ALAM_ROOT/ros2_ws/install
if [ ! -f "$ALAM_ROOT/.venv/bin/activate" ] || [ ! -f "$_install/setup.bash" ]; then
  echo "error: not set up yet: run 'make setup' in $ALAM_ROOT" >&2
  return 2 2>/dev/null || exit 2
fi
export ALAM_ROOT
source "$ALAM_ROOT/.venv/bin/activate"
source "$_install/setup.bash"
export RMW_IMPLEMENTATION=rmw_fastrtps_cpp
# DDS stays on this host: the local profile binds every socket to the loopback interface, and
# SYSTEM_DEFAULT leaves discovery to the profile.
_local=$_install/alam_bringup/share/alam_bringup/config/fastdds_local.xml
export FASTRTPS_DEFAULT_PROFILES_FILE=${FASTRTPS_DEFAULT_PROFILES_FILE:-$_local}
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-SYSTEM_DEFAULT}
export MUJOCO_GL=${MUJOCO_GL:-egl}
# Options of python-can: with a hop limit of 0, frames of the emulated bus do not leave this host.
export CAN_CONFIG=${CAN_CONFIG:-'{"hop_limit": 0}'}
unset _install _local
