# The load generator, and the benchmark that it is for.

BENCH_DIR = $(OBJECTS)/bench
BENCH_COMPILE = $(COMPILE) -O2

.PHONY: load bench

load: $(BENCH_DIR)/load ## build the load generator, build/default/bench/load

$(BENCH_DIR)/%: tests/%.c $(OBJECTS)/flags
	$(SHORT) '$(CC) -o $@ $<'
	@mkdir -p $(@D)
	$(Q)$(BENCH_COMPILE) -o $@ $<
