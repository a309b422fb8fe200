# The CUnit suites. `make test` runs them side by side.
#
#     make test TESTS='NAME ...'   these tests, in whichever suites they are
#     make test SUITES=handler     this suite

ALL_SUITES := segments handler server client
SUITES = $(ALL_SUITES)
TEST_FLAGS = -D_GNU_SOURCE -I. -Itests -Wno-switch-enum
SUITE_PROGRAMS = $(SUITES:%=$(OBJECTS)/test_%)

ifneq ($(filter-out $(ALL_SUITES),$(SUITES)),)
$(error no suite is called '$(filter-out $(ALL_SUITES),$(SUITES))'; there are: $(ALL_SUITES))
endif

# A build that is slower waits longer for everything.
SLOW = $(SANITIZE)$(COVERAGE)$(TEST_WRAPPER)
TEST_COMMAND = make$(if $(filter-out cc,$(CC)), CC=$(CC))$(if $(SANITIZE), SANITIZE=$(SANITIZE)) test

.PHONY: test suites cunit

test: all suites ## build and pass every test; one: make test TESTS=NAME
	@PROGRAMS=$(PROGRAMS) $(if $(SLOW),PATIENCE=60 LINES=200) TEST_WRAPPER='$(TEST_WRAPPER)' \
	    sh tests/run.sh $(OBJECTS) '$(SUITES)' '$(TESTS)' '$(TEST_COMMAND)'

suites: $(SUITE_PROGRAMS)

vpath test_%.c tests tests/torture

$(OBJECTS)/test_%: test_%.c tests/harness.c tests/harness.h $(OBJECTS)/handler.o | cunit
	$(SHORT) '$(CC) -o $@ $<'
	$(Q)$(LINK) $(TEST_FLAGS) -o $@ $< tests/harness.c $(OBJECTS)/handler.o -lcunit

$(OBJECTS)/test_segments: lab-notes/programs/segments.c

# CUnit is the one thing beyond a compiler that the suites need. Where it can be
# installed without asking for a password, it is.
HAVE_CUNIT = printf '\043include <CUnit/Basic.h>\n' | $(CC) $(CFLAGS) -E - >/dev/null 2>&1
CUNIT_MISSING = CUnit is missing. Debian/Ubuntu: sudo apt-get install libcunit1-dev; \
    Fedora: sudo dnf install CUnit-devel; Arch: sudo pacman -S cunit; macOS: brew install cunit

cunit:
	@$(HAVE_CUNIT) || { \
	    sudo=; [ "$$(id -u)" = 0 ] || sudo='sudo -n'; \
	    if command -v apt-get >/dev/null 2>&1 && $$sudo true 2>/dev/null; then \
	        echo '$(CC): no CUnit/Basic.h, so: apt-get install libcunit1-dev'; \
	        $$sudo apt-get install -y -q libcunit1-dev >/dev/null 2>&1 || { \
	            $$sudo apt-get update -q >/dev/null 2>&1; \
	            $$sudo apt-get install -y -q libcunit1-dev >/dev/null 2>&1; }; \
	    fi; \
	    $(HAVE_CUNIT); \
	} || { echo '$(CUNIT_MISSING)' >&2; exit 1; }
