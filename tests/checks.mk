# The tools that read the code, and the tools that watch it run.

C_FILES = $(wildcard *.c *.h tests/*.c tests/*.h tests/*/*.c tests/*/*.h lab-notes/*/*.c lab-notes/*/*/*.[ch])
SCRIPTS = .ci/run $(wildcard tests/*.sh tests/*/*.sh lab-notes/*/*.sh)
PYTHON_FILES = $(wildcard tests/*.py tests/*/*.py lab-notes/*/*.py)

.PHONY: budgets warnings musl sanitizers memcheck helgrind tidy cppcheck format \
    format-check shellcheck pyflakes lint coverage coverage-all readme

lint: budgets warnings tidy cppcheck format-check shellcheck pyflakes ## all that reads the code: compilers, linters, formatters

budgets: ## the sources are short enough for a lesson
	@tests/budgets.sh

# Each compiler brings warnings that the other has not.
GCC_WARNINGS = -Werror -Wlogical-op -Wduplicated-cond -Wduplicated-branches \
    -Wjump-misses-init -Wtrampolines -Wrestrict -Walloca -Warith-conversion
CLANG_WARNINGS = -Werror -Weverything -Wno-padded -Wno-declaration-after-statement \
    -Wno-disabled-macro-expansion -Wno-missing-noreturn -Wno-covered-switch-default \
    -Wno-atomic-implicit-seq-cst

warnings: ## gcc and clang with all warnings that are worth it, as errors
	@$(MAKE) --no-print-directory CC=gcc CFLAGS='$(GCC_WARNINGS)' all datagrams designs suites
	@$(MAKE) --no-print-directory CC=clang CFLAGS='$(CLANG_WARNINGS)' all datagrams designs
	@$(MAKE) --no-print-directory CC=clang CFLAGS=-Werror suites
	@$(MAKE) --no-print-directory musl

musl: ## another C library: build/musl-gcc/
	@$(MAKE) --no-print-directory CC=musl-gcc CFLAGS=-Werror LDFLAGS=-static all datagrams designs

sanitizers: sanitizer-address sanitizer-thread ## the suites under AddressSanitizer with UBSan, and ThreadSanitizer

sanitizer-%:
	@$(MAKE) --no-print-directory SANITIZE=$* test

VALGRIND = valgrind -q --vgdb=no --error-exitcode=99
MEMCHECK = $(VALGRIND) --leak-check=full --show-leak-kinds=definite \
    --errors-for-leak-kinds=definite
HELGRIND = $(VALGRIND) --tool=helgrind --suppressions=tests/torture/helgrind.supp

memcheck: ## the suites under valgrind's memcheck
	@WRAPPER='$(MEMCHECK)' LOAD=20 \
	    $(MAKE) --no-print-directory test TEST_WRAPPER='$(MEMCHECK)'

helgrind: ## the suites under valgrind's helgrind, with a smaller load
	@WRAPPER='$(HELGRIND)' LOAD=50 \
	    $(MAKE) --no-print-directory test TEST_WRAPPER='$(HELGRIND)'

tidy: ## clang-tidy, as .clang-tidy says
	clang-tidy --quiet --warnings-as-errors='*' server.c handler.c client.c \
	    -- $(STANDARD) -I.
	clang-tidy --quiet --warnings-as-errors='*' $(wildcard tests/*.c tests/*/*.c lab-notes/*/*.c lab-notes/*/*/*.c) \
	    -- -std=c11 -D_GNU_SOURCE= -I. -Itests

# In the tests style is left to clang-tidy, and memory to valgrind: cppcheck does
# not know that a fatal assertion ends a test.
CPPCHECK = cppcheck --quiet --error-exitcode=1 --std=c11 --inline-suppr \
    --suppress=missingIncludeSystem --suppress=unmatchedSuppression -I. -Itests

cppcheck: ## cppcheck, every level for the sources
	$(CPPCHECK) --enable=all --suppress=unusedFunction $(filter-out tests/%,$(C_FILES))
	$(CPPCHECK) --enable=warning,performance,portability --suppress=varFuncNullUB \
	    --suppress=uninitvar --suppress=legacyUninitvar $(filter tests/%,$(C_FILES))

format: ## put the C files into the project's form
	clang-format -i $(C_FILES)

format-check: ## the C files are in the project's form
	clang-format --dry-run -Werror $(C_FILES)

shellcheck: ## shellcheck over the scripts
	shellcheck $(SCRIPTS)

pyflakes: ## pyflakes over the tests and tools in Python
	pyflakes3 $(PYTHON_FILES)

# gcov's own report: for each of the three files the part of its lines that the
# suites ran. Their programs end by exit(3), so each leaves its counts.
COVERAGE_LEAST = 90
GCOVR = gcovr --root . --object-directory build/coverage --filter server.c \
    --filter handler.c --filter client.c --gcov-ignore-parse-errors $(GCOVR_FLAGS)

coverage: ## line coverage of the three sources by the suites, 90 % or more
	@rm -rf build/coverage
	@$(MAKE) --no-print-directory COVERAGE=1 test
	@$(GCOVR) 2>build/coverage/gcovr.log | tee build/coverage/report
	@awk '/^[a-z]+\.c / { files++; if ($$4 + 0 < $(COVERAGE_LEAST)) low = 1 } \
	    END { exit files != 3 || low }' build/coverage/report || \
	    { echo 'coverage: below $(COVERAGE_LEAST) %' >&2; exit 1; }

# The counts go on from there, with what makes the programs fail.
COVERAGE_ALL_LEAST = 98

coverage-all: coverage ## line and branch coverage by all tests, and what is left: 2 minutes
	@$(MAKE) --no-print-directory COVERAGE=1 ROUNDS=5 faults exhaustion fire
	@$(GCOVR) --json build/coverage/all.json 2>>build/coverage/gcovr.log
	@/usr/bin/python3 -B tests/torture/coverage.py build/coverage/all.json $(COVERAGE_ALL_LEAST)

readme: ## type the session in README.md, as a student would
	@python3 tests/labs/labs.py README.md
