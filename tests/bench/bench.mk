# The load generator, and the benchmark that it is for, optimized in each variant:
# we look at the server. Options of bench.py: BENCH_FLAGS='--only rr --rounds 3'.

BENCH := $(OBJECTS)/bench
BENCH_OUT = build/bench
TWIN := $(if $(shell command -v go),$(BENCH)/fair-twin)

.PHONY: load bench bench-tables load-selftest

load: $(BENCH)/load $(BENCH)/bare ## the load generator, build/default/bench/load

bench: all release designs $(BENCH)/load $(BENCH)/bare $(TWIN) ## each design, and peers, 13 minutes; with QUICK=1 two
	@python3 tests/bench/bench.py $(if $(QUICK),--quick) $(if $(VERBOSE),--verbose) \
	    --server $(PROGRAMS)/server --release build/release/server \
	    --load $(BENCH)/load --bare $(BENCH)/bare \
	    $(if $(TWIN),--twin $(TWIN)) --out $(BENCH_OUT) $(BENCH_FLAGS)

bench-tables: ## rewrite the tables and plots of the labs from lab-notes/bench/bench.csv
	@python3 tests/bench/bench.py --tables lab-notes/*.md --out lab-notes/bench

load-selftest: all $(BENCH)/load ## the load generator notices what is wrong
	@python3 tests/bench/load_selftest.py $(BENCH)/load $(PROGRAMS)/server

$(BENCH)/%: tests/bench/%.c $(OBJECTS)/flags
	$(SHORT) '$(CC) -o $@ $<'
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -O2 -o $@ $<

# Go keeps its cache in the build directory, not in the student's home.
$(BENCH)/fair-twin: lab-notes/programs/fair-twin.go
	$(SHORT) 'go build -o $@ $<'
	@mkdir -p $(@D)
	$(Q)GOCACHE=$(CURDIR)/build/go go build -o $@ $<
