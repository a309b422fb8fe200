# The labs, every transcript of them executed. LAB=03 does one.

.PHONY: labs labs-selftest lessons

labs: ## do all labs, type every transcript; one of them: make labs LAB=03
	@python3 tests/labs/labs.py $(LAB)

labs-selftest: ## the lab runner's own tests: a wrong transcript must fail
	@python3 tests/labs/labs_selftest.py

lessons: ## TEACHING.md and GLOSSARY.md fit the labs
	@python3 tests/labs/lessons.py

# For the projector: everything at once, in four panes of tmux.

.PHONY: demo demo-test

demo: all ## tmux: the server's log, a client, live lsof, live threads
	@tests/labs/demo.sh $(PROGRAMS)

demo-test: all ## drives the demo and reads its panes
	@python3 tests/labs/demo_test.py $(PROGRAMS)

# The diagrams of the documents, drawn into build/diagrams/, and the labs to be
# handed out on paper, build/handouts/.

.PHONY: diagrams handouts

diagrams: ## every Mermaid diagram renders (node, npm, chromium)
	@python3 tests/labs/diagrams.py

handouts: diagrams ## the labs as PDF, two pages each (pandoc, poppler-utils)
	@python3 -B tests/labs/handouts.py

# The bugs of lab 15, each put into a copy of the sources, found, and mended.

.PHONY: bugs

bugs: ## the bugs of lab 15 are found, and their repair is accepted
	@python3 -B tests/labs/bugs.py
