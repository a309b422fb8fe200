# The labs, every transcript of them executed. LAB=03 does one.

.PHONY: labs labs-selftest

labs: ## do all labs, type every transcript; one of them: make labs LAB=03
	@python3 tests/labs.py $(LAB)

labs-selftest: ## the lab runner's own tests: a wrong transcript must fail
	@python3 tests/labs_selftest.py
