# Lab 18: a server from an empty file. `make mine` compiles the student's file,
# mine.c at the top, and grades it; the steps here are what it may become.

FROM_SCRATCH := $(OBJECTS)/from-scratch
MINE := $(if $(VARIANT),$(OBJECTS),build)/mine

.PHONY: mine from-scratch from-scratch-programs

mine: $(MINE) ## compile and grade mine.c, a lab's: make mine STAGE=1
	@python3 tests/grade.py $(if $(STAGE),--stage $(STAGE)) -- $(MINE) PORT

$(MINE): mine.c $(OBJECTS)/flags
	$(SHORT) '$(CC) -o $@ $<'
	$(Q)$(LINK) -o $@ $<

mine.c:
	@echo 'No mine.c here. Begin with: cp lab-notes/from-scratch/start.c mine.c' >&2
	@exit 2

from-scratch-programs: $(patsubst lab-notes/from-scratch/%.c,$(FROM_SCRATCH)/%, \
    $(wildcard lab-notes/from-scratch/*.c))

$(FROM_SCRATCH)/%: lab-notes/from-scratch/%.c $(OBJECTS)/flags
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $<

from-scratch: ## the eight steps are what the lab says of them; one: STAGE=3
	@$(MAKE) --no-print-directory CC=gcc CFLAGS='$(GCC_WARNINGS)' from-scratch-programs
	@$(MAKE) --no-print-directory CC=clang CFLAGS='$(CLANG_WARNINGS)' from-scratch-programs
	@$(MAKE) --no-print-directory SANITIZE=thread CFLAGS=-Werror from-scratch-programs
	@$(MAKE) --no-print-directory SANITIZE=address CFLAGS=-Werror from-scratch-programs
	@python3 lab-notes/from-scratch/check.py $(STAGE)
