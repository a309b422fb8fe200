# Datagrams and raw sockets. Their CUnit suites join the others in `make test`.

SUITES += datagrams segments

.PHONY: datagram-peers segments-check

datagram-peers: all ## nc, socat, ncat and bash talk datagrams with ./server -u
	PROGRAMS=$(PROGRAMS) tests/datagrams.py peers

segments-check: all segments ## build/segments sees the segments that tcpdump sees
	PROGRAMS=$(PROGRAMS) SEGMENTS=$(SEGMENTS) tests/datagrams.py segments

$(OBJECTS)/test_segments: lab-notes/segments.c
