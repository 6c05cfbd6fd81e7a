# The few commands there are. 'make help' lists them.
SHELL := /bin/bash
EPISODES ?= 5
.DEFAULT_GOAL := help
.PHONY: help setup lint test demo clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup:  ## virtual environment, ROS 2 Jazzy, workspace; does nothing that is done already
	@scripts/setup.sh

lint: setup  ## ruff and mypy
	@source setup.bash && ruff check . && ruff format --check . && mypy

test: lint  ## all checks and tests, the fast ones first
	@source setup.bash && start=$$SECONDS && \
	python -m pytest -q -m "not slow" && python -m pytest -q -m slow && \
	echo "tests passed in $$((SECONDS - start)) s"

demo: setup  ## the whole stack on a simulated arm; EPISODES=5
	@source setup.bash && ALAM_SETUP_S=$$(cat .venv/.alam_setup_s 2>/dev/null) alam demo episodes:=$(EPISODES)

clean:  ## remove what was built (not .venv, data/ or runs/)
	rm -rf ros2_ws/build ros2_ws/install ros2_ws/log .pytest_cache .mypy_cache .ruff_cache alam_core.egg-info
