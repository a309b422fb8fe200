# The programs from outside: real peers, real tools.

OUTSIDE = PROGRAMS='$(PROGRAMS)' /usr/bin/python3 -B

.PHONY: peers tools

peers: all ## test with telnet, nc, socat and the like at the other end
	$(Q)$(OUTSIDE) tests/peers/peers.py

tools: all ## test what lsof, netstat, /proc, gdb and strace show
	$(Q)$(OUTSIDE) tests/peers/tools.py

# Datagrams and raw sockets.

.PHONY: datagram-peers segments-check

datagram-peers: all ## nc, socat, ncat and bash talk datagrams with ./server -u
	PROGRAMS=$(PROGRAMS) tests/peers/datagrams.py peers

segments-check: all segments ## build/segments sees the segments that tcpdump sees
	PROGRAMS=$(PROGRAMS) SEGMENTS=$(SEGMENTS) tests/peers/datagrams.py segments
