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
