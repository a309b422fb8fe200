# The diagrams of the documents, drawn into build/diagrams/.

.PHONY: diagrams

diagrams: ## every Mermaid diagram renders (node, npm, chromium)
	@python3 tests/diagrams.py
