# diffused — see README.md. `make help` lists the targets.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
SHELL := /bin/bash

BUILD    ?= build
CC       ?= gcc
ifeq ($(origin CC),default)
CC       := gcc
endif
GLSLC    ?= glslc
SANITIZE ?=
JOBS     ?= $(shell nproc)
DESTDIR  ?=
PREFIX   ?= /usr

ifneq ($(SANITIZE),)
BUILD    := $(BUILD)/sanitize
SANFLAGS := -fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined
endif

PACKAGES := libdrm vulkan libsystemd libpng libjpeg inih jansson libutf8proc libarchive
CFLAGS   ?= -O2 -g
CFLAGS_  := -std=c11 -D_GNU_SOURCE -I. -I$(BUILD)/gen -MMD -MP -pthread -Wall -Wextra -Werror \
            -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -ffp-contract=off \
            -fstack-protector-strong $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
LDFLAGS_ := -pthread -Wl,--as-needed -Wl,-z,relro,-z,now
LIBS     := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lm

# --- sources: found, not listed; a folder is an archive, a main is a program ---------------------
VK_SRC     := $(wildcard vk/*.c vk/*/*.c)
MAINS      := daemon/main.c daemon/worker-main.c
DAEMON_SRC := $(filter-out $(MAINS),$(wildcard daemon/*.c))
BUS_SRC    := $(wildcard dbus/bus*.c)
CTL_SRC    := $(wildcard dbus/diffusectl*.c)
PROGRAMS   := $(addprefix $(BUILD)/,diffused diffused-worker diffusectl)

FUZZ_SRC    := $(filter-out %/libfuzzer.c %/test-corpus.c,$(wildcard tests/fuzz/*.c))
SUPPORT_SRC := $(wildcard tests/support/*.c tests/*/ref_*.c) tests/oom/oom.c $(FUZZ_SRC)
TEST_SRC    := $(wildcard tests/*/test-*.c)
TOOL_SRC    := $(wildcard tests/tools/*.c)
TESTS       := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRC))
TOOLS       := $(patsubst tests/tools/%.c,$(BUILD)/tests/%,$(TOOL_SRC))

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

# --- people's targets -----------------------------------------------------------------------------
.PHONY: help deps all demo check check-gpu check-fuzz-bus check-vulkan-faults check-large bench fuzz fuzz-coverage install clean \
	format tables
help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14
	@echo "variables: SANITIZE=address,undefined  CC=clang  JOBS=n  DESTDIR=  PREFIX=/usr"

deps: ## install the Debian packages needed to build and test
	@packaging/install-deps

programs: $(PROGRAMS)

all: $(PROGRAMS) $(TESTS) $(TOOLS) ## build programs, tests and tools
	@:

demo: ## install what is missing, build, start a private bus and the daemon, draw a fox
	@packaging/install-deps --if-missing
	@$(MAKE) -j$(JOBS) $(PROGRAMS)
	@tests/system/demo $(BUILD)

check: ## all tests, on every Vulkan driver there is without a GPU
	@packaging/install-deps --if-missing
	@$(MAKE) -j$(JOBS) all
	@tests/run $(BUILD)

check-gpu: ## the GPU tests on the machine's own default driver
	@$(MAKE) -j$(JOBS) all
	@tests/run --gpu $(BUILD)

.PHONY: check-spool-faults check-crash
check-crash: ## random kills of manager and worker under mixed load; ROUNDS=2000 SEED=1
	@$(MAKE) -j$(JOBS) $(BUILD)/diffused $(BUILD)/tests/fake-worker $(BUILD)/tests/crash
	@$(BUILD)/tests/crash --rounds $(or $(ROUNDS),2000) --seed $(or $(SEED),1)

.PHONY: check-power-cut check-drop-faults
check-power-cut: ## every change of the spool as a disk may hold it after a power cut; SHUFFLES=20 SEED=1
	@$(MAKE) -j$(JOBS) $(BUILD)/tests/power-cut
	@$(BUILD)/tests/power-cut $(or $(SHUFFLES),20) $(or $(SEED),1)

check-drop-faults: ## kills and errors at every file system call of a dropped ticket's way
	@$(MAKE) -j$(JOBS) $(BUILD)/diffused $(BUILD)/tests/fake-worker $(BUILD)/tests/system/test-drop-faults
	@STRIDE=1 ERRORS=1 TIMEOUT=7200 tests/run $(BUILD) system/test-drop-faults

check-spool-faults: ## kills and errors at every file system call of the spool; FS="plain ext4 xfs btrfs"
	@$(MAKE) -j$(JOBS) $(BUILD)/tests/spool-faults
	@tests/system/spool-faults $(BUILD) $(FS)

bench: ## GFLOP/s per GEMM and convolution shape beside the FMA peak
	@$(MAKE) -j$(JOBS) all
	@tests/bench/run $(BUILD)

check-vulkan-faults: ## every Vulkan call of a picture fails, one at a time (the full loop; minutes)
	@$(MAKE) -j$(JOBS) all
	@FULL=1 TIMEOUT=7200 DRIVERS=lavapipe tests/run $(BUILD) pipeline/test-faults

check-large: ## 1024x1024 pixels on devices of 128 MiB bindings and 1 GiB allocations (half an hour a driver; DRIVERS=…)
	@$(MAKE) -j$(JOBS) $(BUILD)/tests/pipeline/test-large
	@LARGE=1 TIMEOUT=14400 tests/run $(BUILD) pipeline/test-large

check-fuzz-bus: ## the bus fuzzer for long (CALLS=100000, SEED=n; with SANITIZE=address,undefined)
	@$(MAKE) -j$(JOBS) $(BUILD)/diffused $(BUILD)/tests/fake-worker $(BUILD)/tests/dbus/test-fuzz
	@CALLS=$(or $(CALLS),100000) TIMEOUT=7200 tests/run $(BUILD) dbus/test-fuzz
	@grep calls: $(BUILD)/logs/none-dbus-test-fuzz.log

fuzz: ## libFuzzer over every reader of foreign bytes (RUNS=1000000, TARGET=name)
	@tests/fuzz/run $(TARGET)

fuzz-coverage: ## the kept corpus's coverage of the parsers (TARGET=name; lines and branches)
	@tests/fuzz/coverage $(TARGET)

install: $(PROGRAMS) ## install programs and system files (DESTDIR=, PREFIX=, UNITDIR=)
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' UNITDIR='$(UNITDIR)' SYSCONFDIR='$(SYSCONFDIR)' \
		ZSHDIR='$(ZSHDIR)' packaging/install $(BUILD)

.PHONY: programs deb check-system
deb: ## Debian packages, checked by lintian, in build/deb
	@packaging/install-deps --if-missing build deb
	@packaging/make-deb build/deb

check-system: deb ## the packages under a real systemd in a container: needs root, a Debian mirror
	@packaging/install-deps --if-missing build deb system
	@tests/system/check-system build/deb

format: ## clang-format everything
	@git ls-files '*.c' '*.h' | xargs clang-format -i

tables: $(BUILD)/tests/tables ## put the tables of keys, options and events into etc/ and its manuals
	@$(BUILD)/tests/tables

clean: ## remove build/
	rm -rf build

# --- how things are built -------------------------------------------------------------------------
include vk/shaders/variants.mk

$(BUILD)/obj/%.o: %.c | $(SHADER_TABLE)
	@mkdir -p $(@D)
	@echo "cc   $<"
	@$(CC) $(CFLAGS_) $(CPPFLAGS) $(CFLAGS) $(SANFLAGS) -c $< -o $@

$(BUILD)/libvk.a: $(call obj,$(VK_SRC))
$(BUILD)/libdaemon.a: $(call obj,$(DAEMON_SRC))
$(BUILD)/libbus.a: $(call obj,$(BUS_SRC))
$(BUILD)/libsupport.a: $(call obj,$(SUPPORT_SRC))
$(BUILD)/%.a:
	@mkdir -p $(@D)
	@rm -f $@
	@echo "ar   $@"
	@$(AR) rcs $@ $^

link = @mkdir -p $(@D) && echo "link $@" && $(CC) $(CFLAGS) $(SANFLAGS) $(LDFLAGS_) $(LDFLAGS) -o $@ $(1) $(LIBS)
VKA := $(BUILD)/libvk.a
ALL_A := $(BUILD)/libbus.a $(BUILD)/libdaemon.a $(VKA)

$(BUILD)/diffused: $(call obj,daemon/main.c) $(ALL_A)
	$(call link,$^)
$(BUILD)/diffused-worker: $(call obj,daemon/worker-main.c) $(BUILD)/libdaemon.a $(VKA)
	$(call link,$^)
$(BUILD)/diffusectl: $(call obj,$(CTL_SRC)) $(VKA)
	$(call link,$^)

# The worker with the fake engine: the daemon's tests need no Vulkan.
$(BUILD)/tests/fake-worker: $(call obj,daemon/worker-main.c tests/fake/engine.c) \
                            $(BUILD)/libdaemon.a $(VKA)
	$(call link,$^)
ifneq ($(wildcard tests/fake/engine.c),)
all: $(BUILD)/tests/fake-worker
endif

# What a client can look like; run by tests/ctl/test-examples.
$(BUILD)/tests/example-generate: $(call obj,dbus/examples/generate.c)
	$(call link,$^)
all: $(BUILD)/tests/example-generate

# Preloaded before a program's allocator: no sanitizer, no archive.
$(BUILD)/tests/oom.so: tests/oom/shim.c tests/oom/control.h
	@mkdir -p $(@D)
	@echo "link $@"
	@$(CC) $(filter-out -MMD -MP,$(CFLAGS_)) $(CFLAGS) -fPIC -shared $(LDFLAGS_) -o $@ $<
all: $(BUILD)/tests/oom.so

# One program for all targets; libFuzzer's part comes with clang's -fsanitize=fuzzer (tests/fuzz/run).
$(BUILD)/fuzz/fuzz: $(call obj,tests/fuzz/libfuzzer.c $(FUZZ_SRC)) $(BUILD)/libdaemon.a $(VKA)
	$(call link,$(FUZZ_LDFLAGS) $^)

$(TOOLS): $(BUILD)/tests/%: $(BUILD)/obj/tests/tools/%.o $(BUILD)/libsupport.a $(ALL_A)
	$(call link,$< $(BUILD)/libsupport.a $(ALL_A))
$(TESTS): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(BUILD)/libsupport.a $(ALL_A)
	$(call link,$< $(BUILD)/libsupport.a $(ALL_A) -lcmocka)

.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
