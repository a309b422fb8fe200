# Lab 15. Each patch puts one bug into a copy of the project, to be found and
# mended there:
#
#     make bug-c      makes build/bugs/c, unless it is there, and builds it
#     make check-c    judges your repair of it
#
# To begin again: rm -r build/bugs/c.

IN_BUG = $(MAKE) -s --no-print-directory -C build/bugs/$*
# ThreadSanitizer shall say server.c, and not the whole path.
BUG_THREAD = SANITIZE=thread CFLAGS=-fdebug-prefix-map=$(CURDIR)/build/bugs/$*=.

bug-%: lab-notes/bugs/%.patch
	@[ -d build/bugs/$* ] || { \
	    rm -rf build/bugs/new && mkdir -p build/bugs/new && \
	    cp server.c handler.c handler.h client.c build/bugs/new && \
	    ln -s ../../../Makefile ../../../tests ../../../lab-notes build/bugs/new && \
	    patch -s -p1 -d build/bugs/new < $< && mv build/bugs/new build/bugs/$*; }
	@$(IN_BUG) all > build/bugs/$*.log
	@$(IN_BUG) $(BUG_THREAD) all >> build/bugs/$*.log
	@echo 'In build/bugs/$*: the sources, ./server, ./client and build/thread/server'

# The grader sees what a client can see. ThreadSanitizer sees the threads, while
# the suites run.
check-%: build/bugs/%/server.c
	@$(IN_BUG) all > build/bugs/$*.log
	@python3 -B tests/grade.py -- build/bugs/$*/server -p PORT > build/bugs/$*.log || \
	    { grep -Ev '^  (ok|not run) ' build/bugs/$*.log; exit 1; }
	@tail -n 2 build/bugs/$*.log | head -n 1
	@$(IN_BUG) $(BUG_THREAD) SUITES='handler server' test > build/bugs/$*.log 2>&1 || \
	    { awk '/^FAILED/ { n++ } n == 1 && /^(FAILED|    )/' build/bugs/$*.log; \
	    grep passed build/bugs/$*.log | tail -n 1; exit 1; }
	@tail -n 1 build/bugs/$*.log
	@echo 'The bug in build/bugs/$* is mended.'
