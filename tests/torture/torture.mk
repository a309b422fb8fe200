# Faults, hostile input and load: tests/README.md says what each part does.
#
#     make torture                 all of it, in about seven minutes
#     make fuzz FUZZ_SECONDS=600   one part, longer
#     make faults ONLY=accept      tests of one part, by name

FUZZ_SECONDS = 60
TORTURE = PROGRAMS='$(PROGRAMS)' /usr/bin/python3 -B

.PHONY: machines mutants delays fuzz faults exhaustion hostile fire leaks portability hardening \
    torture storm-sanitized

# ---- Fuzzing ----

# libFuzzer comes with clang. Of the time the handler gets the most.
FUZZ = build/fuzz
FUZZERS = handler client server $(patsubst lab-notes/programs/%.c,%,$(wildcard lab-notes/programs/segments.c))
FUZZ_CC = clang $(STANDARD) -I. -g -O1 -fno-omit-frame-pointer \
    -fno-sanitize-recover=all
FUZZ_PART_handler = 3 / 5
FUZZ_PART_client = 1 / 6
FUZZ_PART_server = 1 / 6
FUZZ_PART_segments = 1 / 15
FUZZ_WRAP_handler = recv send poll shutdown setsockopt clock_gettime

wrapped = $(1:%=-Wl,--wrap=%)

fuzz: ## fuzz the handler, the client and the options; FUZZ_SECONDS=60
	@if command -v clang >/dev/null; then \
	    $(MAKE) --no-print-directory $(FUZZERS:%=fuzz-%) && \
	    echo '$(words $(FUZZERS)) passed, 0 failed, 0 skipped'; \
	elif [ "$$CI" = true ]; then \
	    echo 'fuzz: FAILED, no clang: 0 passed, 1 failed, 0 skipped'; exit 1; \
	else \
	    echo 'fuzz: SKIPPED, no clang: 0 passed, 0 failed, 1 skipped'; \
	fi

fuzz-%: $(FUZZ)/%
	@mkdir -p $(FUZZ)/corpus/$*
	@$(FUZZ)/$* -max_len=9216 -artifact_prefix=$(FUZZ)/ -print_final_stats=1 \
	    -max_total_time=$$(($(FUZZ_SECONDS) * $(FUZZ_PART_$*) + 1)) -verbosity=0 \
	    $(FUZZ)/corpus/$* tests/torture/corpus/$* 2>$(FUZZ)/$*.log || \
	    { tail -40 $(FUZZ)/$*.log; echo 'fuzz-$*: FAILED'; exit 1; }
	@printf 'fuzz-$*: passed, %s executions\n' \
	    "$$(sed -n 's/.*executed_units: *//p' $(FUZZ)/$*.log)"

.SECONDARY: $(FUZZERS:%=$(FUZZ)/%)

$(FUZZ)/handler.o: handler.c handler.h
	@mkdir -p $(@D)
	$(SHORT) 'clang -c $<'
	$(Q)$(FUZZ_CC) -fsanitize=fuzzer-no-link,address,undefined -c -o $@ $<

$(FUZZ)/%: tests/torture/fuzz_%.c tests/torture/fuzz_program.h $(FUZZ)/handler.o server.c client.c $(wildcard lab-notes/programs/segments.c)
	$(SHORT) 'clang -o $@ $<'
	$(Q)$(FUZZ_CC) $(WARNINGS) \
	    -fsanitize=fuzzer,address,undefined -o $@ $< \
	    $(FUZZ)/handler.o -pthread $(call wrapped,$(FUZZ_WRAP_$*))

# ---- Every call fails once ----

FAULTY_CALLS = accept bind close connect fcntl freopen fstat fwrite getaddrinfo \
    getnameinfo getsockname listen lstat malloc open poll pthread_attr_init \
    pthread_attr_setdetachstate pthread_attr_setstacksize pthread_cond_timedwait \
    pthread_create pthread_detach pthread_kill read recv send setsockopt shutdown \
    socket sysconf unlink write

faults: $(OBJECTS)/faulty-server $(OBJECTS)/faulty-client all ## make every call of the programs fail once
	@OBJECTS='$(OBJECTS)' $(TORTURE) tests/torture/faults.py $(ONLY)

$(OBJECTS)/faulty-%: $(OBJECTS)/%.o $(OBJECTS)/handler.o tests/torture/faulty.c
	$(SHORT) '$(CC) -o $@ $^'
	$(Q)$(LINK) -D_GNU_SOURCE -o $@ $^ \
	    $(call wrapped,$(FAULTY_CALLS)) $(LDLIBS)

# ---- Faults of ours, and of the scheduler's ----

mutants: ## put small faults into the sources: each must turn `make test` red
	@/usr/bin/python3 -B tests/torture/mutants.py $(ONLY)

delays: all suites $(OBJECTS)/delays.so ## the suites with random delays around 18 calls; SEED=7
	@seed=$${SEED:-$$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}; \
	echo "delays: SEED=$$seed"; \
	DELAYS_SEED=$$seed $(MAKE) --no-print-directory test TESTS='$(TESTS)' \
	    TEST_WRAPPER='env LD_PRELOAD=$(CURDIR)/$(OBJECTS)/delays.so' \
	    TEST_COMMAND="make delays SEED=$$seed"

$(OBJECTS)/delays.so: tests/torture/delays.c
	$(SHORT) '$(CC) -o $@ $<'
	$(Q)$(COMPILE) -Wno-pedantic -Wno-missing-prototypes -shared -fPIC -o $@ $< -ldl

# ---- Nothing left ----

exhaustion: all ## run out of descriptors, threads, memory and output
	@$(TORTURE) tests/torture/exhaustion.py $(ONLY)

# ---- Stopped under fire, and long after the start ----

STORM = PROGRAMS='$(PROGRAMS)' PATIENCE=60 BOUND=7200

fire: all $(OBJECTS)/test_storm ## stop a server that a thousand clients fire at; ROUNDS=100
	@$(STORM) ROUNDS='$(ROUNDS)' CLIENTS='$(CLIENTS)' \
	    $(OBJECTS)/test_storm stop_under_fire stop_during_start

leaks: all $(OBJECTS)/test_storm ## let clients come and go; CONNECTIONS=500000
	@$(STORM) CONNECTIONS='$(CONNECTIONS)' $(OBJECTS)/test_storm leaks

# ---- Hostile clients ----

hostile: all ## a thousand hostile clients beside an honest one; MANY=1000
	@MANY='$(or $(MANY),1000)' $(TORTURE) tests/torture/hostile.py $(ONLY)

# ---- Other machines, and the release ----

machines: all suites ## `make test` on six other machines: no IPv6, few descriptors, old Debian
	@sh tests/torture/machines.sh $(ONLY)

portability: all suites ## the suites under musl, on 64-bit ARM, s390x and 32-bit ARM
	@/usr/bin/python3 -B tests/torture/portability.py $(ONLY)

hardening: release ## check what hardens build/release/
	@sh tests/torture/hardening.sh build/release/server build/release/client

# ---- All of it ----

# Smaller than by hand, so that it ends within eight minutes on two cores. Each
# part is run, whatever became of those before it.
TORTURES = hardening faults exhaustion hostile fire leaks storm-sanitized \
    portability fuzz

torture: ## all of this: faults, hostile clients, stops, leaks, fuzzing
	@failed=; \
	for part in $(TORTURES); do \
	    echo "---- $$part"; \
	    $(MAKE) --no-print-directory CONNECTIONS=$(or $(CONNECTIONS),100000) $$part || \
	        failed="$$failed $$part"; \
	done; \
	set -- $$failed; \
	echo "torture: $$(($(words $(TORTURES)) - $$#)) passed, $$# failed, 0 skipped$${failed:+:$$failed}"; \
	[ -z "$$failed" ]

# The same malice, with every access to memory watched. Fewer clients, since
# their threads are dearer. No suppressions in our code: helgrind.supp has glibc's.
storm-sanitized: ## hostile clients and stops under sanitizers and helgrind
	@for sanitizer in thread address; do \
	    $(MAKE) --no-print-directory SANITIZE=$$sanitizer hostile MANY=100 \
	        ONLY='connect_and_vanish reset_after_each_request random_bytes never_reading_at_the_stop' && \
	    $(MAKE) --no-print-directory SANITIZE=$$sanitizer fire ROUNDS=10 CLIENTS=100 || exit 1; \
	done
	@WRAPPER='valgrind -q --vgdb=no --tool=helgrind --suppressions=tests/torture/helgrind.supp --error-exitcode=99' \
	    $(MAKE) --no-print-directory hostile MANY=30 \
	        ONLY='random_bytes never_reading_at_the_stop'
