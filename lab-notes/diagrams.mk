# The diagrams of the documents, drawn into build/diagrams/, and the labs to be
# handed out on paper, build/handouts/.

.PHONY: diagrams handouts

diagrams: ## every Mermaid diagram renders (node, npm, chromium)
	@python3 tests/diagrams.py

handouts: diagrams ## the labs as PDF, two pages each (pandoc, poppler-utils)
	@python3 -B tests/handouts.py
