# The load generator, and the benchmark that it is for. They are optimized in
# every variant: it is the server that we look at. `make bench` takes options of
# tests/bench/bench.py, say BENCH_FLAGS='--only rr --cores free'.

BENCH := $(OBJECTS)/bench
BENCH_OUT = build/bench
TWIN_SOURCE := $(wildcard lab-notes/programs/twin.go)
TWIN := $(if $(TWIN_SOURCE),$(if $(shell command -v go),$(BENCH)/twin))

.PHONY: load bench load-selftest

load: $(BENCH)/load ## the load generator, build/default/bench/load

bench: all release $(BENCH)/load $(BENCH)/bare $(TWIN) ## beside its peers, 10 minutes; with QUICK=1 two
	python3 tests/bench/bench.py $(if $(QUICK),--quick) --out $(BENCH_OUT) \
	    --server $(PROGRAMS)/server --release build/release/server \
	    --load $(BENCH)/load --bare $(BENCH)/bare \
	    $(if $(TWIN),--twin $(TWIN)) $(BENCH_FLAGS)

load-selftest: all $(BENCH)/load ## the load generator notices what is wrong
	@python3 tests/bench/load_selftest.py $(BENCH)/load $(PROGRAMS)/server

$(BENCH)/%: tests/bench/%.c $(OBJECTS)/flags
	$(SHORT) '$(CC) -o $@ $<'
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -O2 -o $@ $<

# Go keeps its cache in the build directory, not in the student's home.
$(BENCH)/twin: $(TWIN_SOURCE)
	$(SHORT) 'go build -o $@ $<'
	@mkdir -p $(@D)
	$(Q)GOCACHE=$(CURDIR)/build/go go build -o $@ $<
