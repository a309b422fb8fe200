# The CUnit suites. `make test` runs them all; TESTS="name ..." picks tests:
#
#     make test SUITES=server TESTS='many_clients'

SUITES += segments handler server client
TEST_FLAGS = -D_GNU_SOURCE -I. -Itests -Wno-switch-enum
SUITE_PROGRAMS = $(SUITES:%=$(OBJECTS)/test_%)

.PHONY: test suites cunit

test: all suites ## build and pass every CUnit suite
	@for suite in $(SUITES); do \
	    PROGRAMS=$(PROGRAMS) $(TEST_WRAPPER) $(OBJECTS)/test_$$suite $(TESTS) || exit 1; \
	done

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
