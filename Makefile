# A thread-per-connection server to learn sockets from: `make help`.
#
# `make` builds ./server and ./client for stepping: -O0 -g3, nothing optimized
# out. Every other build has a directory of its own below build/, so objects of
# two builds never meet:
#
#     make CC=clang            another compiler
#     make SANITIZE=thread     or address, which brings undefined behaviour too
#     make release             optimized and hardened
#
# What checks the project is in tests/*.mk and tests/*/*.mk, what belongs to the
# labs in lab-notes/*/*.mk.

SHELL = /bin/sh
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

ifeq ($(origin CC),default)
CC = cc
endif

STANDARD = -std=c11 -D_POSIX_C_SOURCE=200809L
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion \
    -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
    -Wformat=2 -Wundef -Wcast-align -Wcast-qual -Wwrite-strings \
    -Wswitch-enum -Werror=switch -Wvla -Wnull-dereference -Wdouble-promotion \
    -Wfloat-equal -Wpointer-arith
OPTIMIZE = -O0 -g3
CFLAGS =
LDFLAGS =
LDLIBS =

# What runs is shown in short; `make V=1` shows it whole.
ifdef V
SHORT = @:
else
Q = @
SHORT = @echo
endif

comma := ,

# A variant is a name for its directory, and flags. Sanitizers keep red zones
# and shadow frames on the stack, so their threads get a larger one.
VARIANT =
VARIANT_FLAGS =
VARIANT_LINK =
# `export CC=gcc; make` picks the compiler of the default build. `make CC=clang`
# asks for a build of its own.
ifeq ($(origin CC),command line)
ifneq ($(CC),cc)
VARIANT := $(notdir $(firstword $(CC)))
endif
endif
ifdef SANITIZE
VARIANT := $(VARIANT)$(if $(VARIANT),-)$(SANITIZE)
VARIANT_FLAGS := -fsanitize=$(SANITIZE)$(if $(filter address,$(SANITIZE)),$(comma)undefined) \
    -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 \
    -DTHREAD_STACK_BYTES=1048576 $(if $(filter thread,$(SANITIZE)),-DSTOP_FLAGS=0)
endif
# Without -fstack-clash-protection: it touches every page of a frame on entry,
# 8 KB more memory for each client, and no frame of ours has a variable size.
ifdef RELEASE
VARIANT := $(VARIANT)$(if $(VARIANT),-)release
VARIANT_FLAGS := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong \
    -fPIE
VARIANT_LINK := -pie -Wl,-z,relro,-z,now
endif
ifdef COVERAGE
VARIANT := $(VARIANT)$(if $(VARIANT),-)coverage
VARIANT_FLAGS := --coverage -fprofile-update=atomic -DTHREAD_STACK_BYTES=262144
endif

# The default build's programs stand at the top, where people look for them.
OBJECTS := build/$(or $(VARIANT),default)
PROGRAMS := $(if $(VARIANT),$(OBJECTS),.)

COMPILE = $(CC) $(STANDARD) $(WARNINGS) $(OPTIMIZE) -pthread $(VARIANT_FLAGS) $(CFLAGS)
LINK = $(COMPILE) $(VARIANT_LINK) $(LDFLAGS)

.PHONY: all run release clean help help-all FORCE

all: $(PROGRAMS)/server $(PROGRAMS)/client ## build ./server and ./client

run: all ## start the server; options: make run ARGS='-p 0'
	@exec $(PROGRAMS)/server $(ARGS)

release: ## build/release/: optimized and hardened
	@$(MAKE) --no-print-directory RELEASE=1 all

clean: ## leave the tree as it was cloned
	rm -rf build server client build.log dump.log

# What a student needs, in this order. The rest is for who changes the project.
FOR_STUDENTS = all run test labs grade play demo clean help
SHOW_TARGETS = awk -F ':.*\#\# ' '/^[a-z0-9-]+:.*\#\# / { printf "  make %-16s %s\n", $$1, $$2 }

help: ## this list; make help-all has the rest
	@for target in $(FOR_STUDENTS); do cat $(MAKEFILE_LIST) | $(SHOW_TARGETS)' | \
	    grep "^  make $$target " || true; done

help-all: ## every target, one group for each room
	@$(SHOW_TARGETS) FNR == 1 { gsub(/^\# *|[.:].*/, ""); print "\n" FILENAME ": " $$0 }' $(MAKEFILE_LIST)

$(PROGRAMS)/server: $(OBJECTS)/server.o $(OBJECTS)/handler.o
	$(SHORT) '$(CC) -o $@ $^'
	$(Q)$(LINK) -o $@ $^ $(LDLIBS)

$(PROGRAMS)/client: $(OBJECTS)/client.o $(OBJECTS)/handler.o
	$(SHORT) '$(CC) -o $@ $^'
	$(Q)$(LINK) -o $@ $^ $(LDLIBS)

$(OBJECTS)/%.o: %.c handler.h $(OBJECTS)/flags
	$(SHORT) '$(CC) -c $<'
	$(Q)$(COMPILE) -c -o $@ $<

# What the objects were compiled with. Other flags, and all of them are made
# again: an object of yesterday's build is never linked into today's.
$(OBJECTS)/flags: FORCE
	@mkdir -p $(@D)
	@[ "$$(cat $@ 2>/dev/null)" = '$(LINK) $(LDLIBS)' ] || echo '$(LINK) $(LDLIBS)' > $@

include $(wildcard tests/*.mk tests/*/*.mk lab-notes/*/*.mk)
