# The stop and the count of clients as a model, tried in every order of steps.

.PHONY: model model-story model-replay

model: ## Spin tries each order in which the threads can take their steps
	@/usr/bin/python3 -B tests/torture/model.py

model-story: ## how a mutant of the model fails, step by step: STORY=no_rounds
	@/usr/bin/python3 -B tests/torture/model.py story '$(STORY)'

model-replay: ## Spin's stories, forced upon the real program
	@/usr/bin/python3 -B tests/torture/replay.py
