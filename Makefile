# SPDX-License-Identifier: Apache-2.0
#
# The commands of the project. Meson and ninja do the building, tools/ has the scripts; this file
# says in which order. It works from any folder: make -f /path/to/Makefile, or make -C /path/to.
#
#   build/release  what runs on a host: gcc, optimised
#   build/guest    what runs in a guest: static, musl
#   build/bench    build/release with the benchmarks, and with the tests that the lab runs
#   build/test     what the tests run: gcc with address and undefined-behaviour sanitizers
#   build/clang    compiled only, for clang's warnings
#   build/fuzz     clang's libFuzzer targets

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

root := $(patsubst %/,%,$(dir $(realpath $(lastword $(MAKEFILE_LIST)))))
build := $(root)/build
tools := $(root)/tools

guest_programs := $(build)/guest/src/guestinit/torpor-init $(build)/guest/src/envd/torpor-envd

setup_release := CC=gcc meson setup --buildtype=release -Doptimization=2 -Dtests=false
setup_guest := meson setup --buildtype=minsize -Dguest=true --native-file $(root)/tools/musl.ini
setup_bench := CC=gcc meson setup --buildtype=release -Doptimization=2
setup_test := CC=gcc meson setup --buildtype=debugoptimized --werror -Db_sanitize=address,undefined
# libFuzzer is clang's.
setup_fuzz := CC=clang meson setup --buildtype=debugoptimized -Dfuzz=true -Db_sanitize=address,undefined
setup_clang := CC=clang meson setup --buildtype=debugoptimized --werror

# Seconds for each target of make fuzz.
FUZZ_SECONDS ?= 60

.PHONY: help build release guest test-build clang test-data test-node lab-data setup-build setup-test \
	up down image-base test crash-full lab bench soak fuzz fmt lint clean

# $(call compile,FOLDER): first configures again if a build file has changed, which is of interest
# only when it fails; then builds. Says nothing but the compiler's words.
define compile
@ninja -C $(build)/$1 build.ninja >$(build)/$1.log 2>&1 || { cat $(build)/$1.log; exit 1; }
@ninja -C $(build)/$1 --quiet | { grep -v '^ninja: no work to do' || true; }
endef

help: build
	@echo
	@echo "Built. What else there is:"
	@echo "  make up      start Torpor on this machine and run a first sandbox (as root)"
	@echo "  make down    stop it; its data stays"
	@echo "  make image-base  make the image base (Debian) for it; takes a minute"
	@echo "  make test    build everything and run all tests that this machine can run"
	@echo "  make crash-full  kill every part at every step, cut the power and fail calls at every place"
	@echo "  make lab     run the tests that need KVM and device-mapper, in a machine that has them"
	@echo "  make lint    check the rules of the source tree"
	@echo "  make fmt     format the source"
	@echo "  make bench   run the benchmarks"
	@echo "  make soak    half an hour of churn on real VMs; shows what grows"
	@echo "  make fuzz    fuzz each parser of untrusted bytes for FUZZ_SECONDS (60)"
	@echo "  make clean   remove what was built; keeps var/"

build: release guest

setup-build:
	@$(tools)/setup.sh build
setup-test:
	@$(tools)/setup.sh build run image test

# Configures once. ninja configures again by itself when a build file changes.
$(build)/%/build.ninja: | setup-build
	@echo "== configuring build/$*"
	@$(setup_$*) $(dir $@) $(root) >$(build)/$*.log 2>&1 || { cat $(build)/$*.log; exit 1; }

$(build)/release/build.ninja $(build)/guest/build.ninja $(build)/bench/build.ninja $(build)/test/build.ninja \
	$(build)/clang/build.ninja $(build)/fuzz/build.ninja: | $(build)
$(build):
	@mkdir -p $@

release: setup-build $(build)/release/build.ninja
	@echo "== building the host's programs (build/release)"
	$(call compile,release)

guest: setup-build $(build)/guest/build.ninja
	@echo "== building the guest's programs (build/guest)"
	$(call compile,guest)
	@$(tools)/check-static.sh $(guest_programs)

test-build: setup-test $(build)/test/build.ninja
	@echo "== building the tests with sanitizers (build/test)"
	$(call compile,test)

clang: setup-test $(build)/clang/build.ninja
	@echo "== compiling with clang (build/clang)"
	$(call compile,clang)

up:
	@$(tools)/up.sh
down:
	@$(tools)/down.sh
# The image "base" for what make up started, also while that runs.
image-base:
	@$(tools)/image-base.sh

# One after the other, also with make -j: the output is for people, and the last line counts.
test:
	@$(MAKE) --no-print-directory -f $(root)/Makefile -j1 setup-test release guest test-build clang test-data test-node lab-data
	@$(tools)/run-tests.sh $(build)/test

# What make test draws some of by a seed: everything. First the power, then real VMs.
crash-full: setup-test test-build test-data
	@echo "== cutting the power behind every operation"
	@TORPOR_CRASH_FULL=1 $(build)/test/tests/unit/durability/test_durability_power 2>$(build)/crash-full.log
	@echo "== failing every call"
	@TORPOR_CRASH_FULL=1 $(build)/test/tests/unit/durability/test_durability_faults 2>>$(build)/crash-full.log
	@echo "== killing everything at every step (some 12 min)"
	@TORPOR_CRASH_ALL=1 $(build)/test/tests/e2e/test_e2e_crash

# Kernel and images for the tests that boot VMs. Those need root too and say so themselves.
test-data: guest
	@if [ "$$(id -u)" -eq 0 ]; then \
		echo "== making the guests' kernel and images (build/data)"; \
		$(root)/images/kernel.sh $(build)/data $(guest_programs) && \
		$(root)/images/minimal.sh $(build)/data && \
		$(root)/images/base.sh $(build)/data || \
		echo "== that failed: VMs are tested with an older kernel and images, or not at all"; \
	else \
		echo "== not root: no VMs can be tested, so no kernel and images for them"; \
	fi

# Real clients for the conformance tests. Where npm has no registry these tests are skipped.
test-node: setup-test
	@$(tools)/node.sh || [ $$? -eq 75 ]

# A machine with KVM and device-mapper, made of the kernel and image above and of programs without
# sanitizers, and the tests that it runs. tests/lab/build.sh says what is in it.
lab-data: test-data $(build)/bench/build.ninja
	@if [ "$$(id -u)" -eq 0 ]; then \
		echo "== making the lab (build/lab)"; \
		ninja -C $(build)/bench --quiet lab-programs && \
		$(root)/tests/lab/build.sh $(build)/lab $(build)/bench $(build)/data || \
		echo "== that failed: the lab is run as it was made before, or not at all"; \
	else \
		echo "== not root: the lab cannot be made"; \
	fi

lab: setup-test lab-data
	@echo "== running the lab"
	@$(root)/tests/lab/run.sh $(build)/lab $(build)/data $(build)/bench/tests/lab/tsc_khz

bench: setup-test test-data $(build)/bench/build.ninja
	@echo "== building the benchmarks (build/bench)"
	@ninja -C $(build)/bench --quiet
	@$(build)/bench/bench/torpor-bench

# TORPOR_SOAK_SECONDS (1800) long; see tests/soak/main.c.
soak: setup-test test-data $(build)/bench/build.ninja
	@echo "== building (build/bench)"
	@ninja -C $(build)/bench --quiet
	@$(build)/bench/tests/soak/torpor-soak

# Starts from the inputs in tests/fuzz/corpus; what else it finds stays in build/fuzz/corpus. A
# finding stops it, and the input is in build/fuzz.
fuzz: setup-test $(build)/fuzz/build.ninja
	@echo "== building the fuzz targets (build/fuzz)"
	$(call compile,fuzz)
	@cd $(build)/fuzz && for dir in $(root)/tests/fuzz/corpus/*/; do \
		name=$$(basename "$$dir"); \
		echo "== fuzzing $$name for $(FUZZ_SECONDS) s"; \
		mkdir -p "corpus/$$name"; \
		"tests/fuzz/fuzz_$$name" -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
			-artifact_prefix="$$name-" "corpus/$$name" "$$dir" >"$$name.log" 2>&1 || \
			{ tail -40 "$$name.log"; exit 1; }; \
		grep -E '^Done' "$$name.log" || true; \
	done

fmt: setup-test
	@$(tools)/source-files.sh $(root) c | xargs -0 clang-format -i

lint: setup-test
	@echo "== checking the rules of the source tree"
	@$(tools)/lint.sh

clean:
	rm -rf $(build)
