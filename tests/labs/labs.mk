# The labs, every transcript of them executed. LAB=03 does one.

.PHONY: labs labs-selftest lessons

labs: ## do all labs, type every transcript; one of them: make labs LAB=03
	@python3 tests/labs/labs.py $(LAB)

labs-selftest: ## the lab runner's own tests: a wrong transcript must fail
	@python3 tests/labs/labs_selftest.py

lessons: ## TEACHING.md and GLOSSARY.md fit the labs
	@python3 tests/labs/lessons.py

# For the projector: a lab plays itself, in tmux.

.PHONY: play demo play-test

play: ## for the projector: a lab plays itself in tmux: make play LAB=08
	@python3 -B tests/labs/play.py $(or $(LAB),$(error which lab? make play LAB=08)) \
	    $(if $(PART),--part $(PART))

demo: ## the same with a server, two clients, lsof and the threads
	@python3 -B tests/labs/play.py lab-notes/programs/demo.md

play-test: ## plays all labs and reads what tmux shows; one: LAB=03
	@python3 -B tests/labs/play_test.py $(LAB)

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
