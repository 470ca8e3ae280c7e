# The door to everything: each target is a line or two, the work is in deploy/ and in cargo.
.PHONY: help up down clean demo test lint fmt bench

help: ## This list
	@sed -n 's/^\([a-z]*\): *## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

up: ## Everything: engine, images, roots of trust, the stack, a demo job
	@deploy/up.sh

demo: ## The demo job once more
	@deploy/demo.sh

down: ## Stop the stack; its data stays
	@deploy/down.sh

clean: ## Remove this stack's containers, and its images if it is the last; asks before it deletes volumes and keys
	@deploy/clean.sh

test: ## Everything that CI runs
	@deploy/test.sh

lint: ## Formatting, clippy, dependency rules, shell scripts
	@deploy/lint.sh

fmt: ## Format the code
	@cargo fmt --all

bench: ## Latency, image sizes, memory at rest: beside the raw Docker API in one run
	@deploy/bench.sh
