# The programs that labs use.

PLACE := $(if $(VARIANT),$(OBJECTS),build)
SEGMENTS := $(PLACE)/segments
DATAGRAMS := $(PLACE)/datagrams

.PHONY: segments datagrams

segments: $(SEGMENTS) ## build/segments, which shows TCP segments (lab 12, Linux)

datagrams: $(DATAGRAMS) ## build/datagrams, which answers datagrams (lab 11)

$(SEGMENTS): lab-notes/programs/segments.c $(OBJECTS)/flags
	$(SHORT) '$(CC) -o $@ $<'
	$(Q)$(LINK) -o $@ $<

$(DATAGRAMS): lab-notes/programs/datagrams.c $(OBJECTS)/handler.o
	$(SHORT) '$(CC) -o $@ $<'
	$(Q)$(LINK) -I. -o $@ $^

# Lab 20: the same service in other designs. In the programs named *-crash a
# client that sends `crash` does what it says.

DESIGNS := $(PLACE)/designs
DESIGN_FILES := lab-notes/programs/designs
THESE_DESIGNS := $(addprefix $(DESIGNS)/,iterative fork prefork pool poll epoll)
CRASHING := $(addsuffix -crash,$(filter-out %/iterative,$(THESE_DESIGNS)) $(DESIGNS)/server)
DESIGN_HEADERS := handler.h $(DESIGN_FILES)/common.h $(DESIGN_FILES)/talk.h $(OBJECTS)/flags

.PHONY: designs designs-check

designs: $(THESE_DESIGNS) $(CRASHING) ## build/designs/: the service in other designs: build/designs/fork PORT (lab 20)

designs-check: designs ## what lab 20 says of the designs is what the grader reports: 1 minute
	@$(MAKE) --no-print-directory SANITIZE=address CFLAGS=-Werror designs
	@$(MAKE) --no-print-directory SANITIZE=thread CFLAGS=-Werror designs
	@python3 -B lab-notes/programs/designs.py $(ONLY)

# What a program is made of, besides its own file.
$(THESE_DESIGNS) $(filter-out %/server-crash,$(CRASHING)): $(DESIGN_FILES)/common.c
$(addprefix $(DESIGNS)/,poll epoll poll-crash epoll-crash): $(addprefix $(DESIGN_FILES)/,talk.c clients.c)
$(CRASHING): $(DESIGN_FILES)/crash.c

$(DESIGNS)/server-crash: server.c handler.c $(DESIGN_HEADERS)
	@mkdir -p $(@D)
	$(SHORT) '$(CC) -o $@ $(filter %.c,$^)'
	$(Q)$(LINK) -Drecv=recv_or_crash -I. -o $@ $(filter %.c,$^)

$(DESIGNS)/%-crash: $(DESIGN_FILES)/%.c handler.c $(DESIGN_HEADERS)
	@mkdir -p $(@D)
	$(SHORT) '$(CC) -o $@ $(filter %.c,$^)'
	$(Q)$(LINK) -Drecv=recv_or_crash -I. -o $@ $(filter %.c,$^)

$(DESIGNS)/%: $(DESIGN_FILES)/%.c $(OBJECTS)/handler.o $(DESIGN_HEADERS)
	@mkdir -p $(@D)
	$(SHORT) '$(CC) -o $@ $(filter %.c %.o,$^)'
	$(Q)$(LINK) -I. -o $@ $(filter %.c %.o,$^)
