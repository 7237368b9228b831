# SPDX-License-Identifier: GPL-3.0-or-later
# `make help` lists what is supported.

export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/archive:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

SUITE = trixie
JOBS = $(shell nproc)
ROUNDS = 5
PEERS =

.DEFAULT_GOAL := help
.PHONY: help demo check check-boot check-all packages matrix sizes bench control clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: ## set up, then the main job from end to end with a throw-away archive in build/demo
	tests/setup demo
	tests/demo build/demo ec2

check: ## set up, then all tests, linters included
	tests/setup check
	.venv/bin/python3 -m pytest --numprocesses=$(JOBS) --dist=loadgroup --durations=20 $(PYTEST)

check-boot: ## boot images in QEMU, by BIOS and UEFI, as README shows
	DEBIAN_CLOUD_BOOTS=1 $(MAKE) check JOBS=1 PYTEST="$(PYTEST) tests/built/test_boot.py"

check-all: ## check and check-boot, and look into the images of every suite and vendor that are built here
	DEBIAN_CLOUD_ALL=1 $(MAKE) check

packages: ## build the Debian packages of SUITE (trixie) in build/packages/SUITE
	tests/setup demo
	rm -rf build/packages/$(SUITE)
	debian/for-suite $(SUITE) build/packages/$(SUITE)

matrix: ## resolve every configuration of every suite and architecture, and print the table
	tests/setup check
	.venv/bin/python3 -m tests.configs.matrix

sizes: ## set the images' sizes beside those of Debian's official package sets (after check-all)
	DEBIAN_CLOUD_ALL=1 .venv/bin/python3 tests/sizes.py build/world

bench: ## measure the builder beside others (ROUNDS=5 PEERS=fai,vmdb2,...), write bench/RESULTS.md; then archive, mirror, instances, EC2
	tests/setup check
	.venv/bin/python3 -m bench --rounds=$(ROUNDS) $(if $(PEERS),--peers=$(PEERS))
	.venv/bin/python3 tests/bench_archive.py
	.venv/bin/python3 tests/bench_mirror.py
	.venv/bin/python3 tests/bench_machines.py
	.venv/bin/python3 tests/bench_ec2.py

control: ## write debian/control from debian/control.j2 and configs/
	PYTHONPATH=src /usr/bin/python3 -m tools.render

clean: ## remove what the targets above made
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache
