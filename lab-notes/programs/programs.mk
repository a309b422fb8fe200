# The raw socket program of the lab on raw sockets (Linux).

SEGMENTS := $(if $(VARIANT),$(OBJECTS),build)/segments

.PHONY: segments

segments: $(SEGMENTS) ## build/segments, which shows TCP segments (a lab's program)

$(SEGMENTS): lab-notes/programs/segments.c $(OBJECTS)/flags
	$(SHORT) '$(CC) -o $@ $<'
	$(Q)$(LINK) -o $@ $<
