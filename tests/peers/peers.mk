# The programs from outside: real peers, real tools.

OUTSIDE = PROGRAMS='$(PROGRAMS)' /usr/bin/python3 -B

.PHONY: peers tools

peers: all ## test with telnet, nc, socat and the like at the other end
	$(Q)$(OUTSIDE) tests/peers/peers.py

tools: all ## gdb stops where .vscode says; rooms of a class
	$(Q)$(OUTSIDE) tests/peers/tools.py

# A program of the labs.

.PHONY: datagrams-check

datagrams-check: datagrams ## build/datagrams with peers that forge, flood and never read
	$(Q)DATAGRAMS='$(DATAGRAMS)' $(OUTSIDE) tests/peers/datagrams.py
