# For the projector: everything at once, in four panes of tmux.

.PHONY: demo demo-test

demo: all ## tmux: the server's log, a client, live lsof, live threads
	@tests/demo.sh $(PROGRAMS)

demo-test: all ## drives the demo and reads its panes
	@python3 tests/demo_test.py $(PROGRAMS)
