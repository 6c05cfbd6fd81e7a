# Set-up, checks, documentation and demo; 'make help' lists the targets.
SHELL := /bin/bash
EPISODES ?= 5
PARALLEL = -n auto --maxprocesses 4 --dist loadgroup
SETUP_S = $$(cat .venv/.alam_setup_s 2>/dev/null)
.DEFAULT_GOAL := help
.PHONY: help setup lint test docs demo clean

help:  ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup:  ## virtual environment, ROS 2 Jazzy, workspace; does nothing if up to date
	@scripts/setup.sh

lint: setup  ## ruff and mypy
	@source setup.bash && ruff check . && ruff format --check . && mypy

test: lint  ## all checks and tests, the fast ones first
	@source setup.bash && start=$$SECONDS && \
	python -m pytest -q $(PARALLEL) -m "not slow" && python -m pytest -q $(PARALLEL) -m slow && \
	echo "tests passed in $$((SECONDS - start)) s"

docs: setup  ## the documentation site, in site/; a broken link fails the build
	@source setup.bash && NO_MKDOCS_2_WARNING=1 mkdocs build --strict

demo: setup  ## run the shipped policy on a simulated arm; EPISODES=5
	@source setup.bash && ALAM_SETUP_S=$(SETUP_S) alam demo --episodes $(EPISODES)

clean:  ## remove build products (keeps .venv, data/ and runs/)
	rm -rf ros2_ws/{build,install,log} site .{pytest,mypy,ruff}_cache *.egg-info
