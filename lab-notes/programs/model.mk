# The stop and the count of clients as a model, tried in every order of steps.

.PHONY: model model-story model-replay

model: ## Spin tries each order in which the threads can take their steps
	@/usr/bin/python3 -B lab-notes/programs/model.py

model-story: ## how a mutant of the model fails, step by step: STORY=no_rounds
	@/usr/bin/python3 -B lab-notes/programs/model.py story '$(STORY)'

model-replay: ## Spin's stories, forced upon the real program
	@PYTHONPATH=tests/torture /usr/bin/python3 -B lab-notes/programs/replay.py
