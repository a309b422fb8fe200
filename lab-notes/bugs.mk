# The bugs of lab 15, each put into a copy of the sources and found by its tool.

.PHONY: bugs

bugs: ## the bugs of lab 15 are found, and the sources are clean
	@python3 tests/bugs.py
