# Marks for servers that somebody wrote. What is asked: tests/grade.py --list
#
#     make grade SERVER='./mine PORT' STAGE=5
#     make grade ADDRESS=192.0.2.7:1208 ONLY='glued torn-in-two'
#     make grade-class DIR=submissions

.PHONY: grade grade-class grade-selftest

grade: ## mark any server, in any language: SERVER='./mine PORT'
	@tests/grade.py $(if $(ADDRESS),--address '$(ADDRESS)') $(if $(STAGE),--stage '$(STAGE)') \
	    $(if $(ONLY),--only '$(ONLY)') $(if $(LIMIT),--limit '$(LIMIT)') \
	    $(if $(JSON),--json '$(JSON)') $(if $(JUNIT),--junit '$(JUNIT)') -- $(SERVER)

grade-class: ## mark each file of a folder: DIR=submissions
	@tests/grader/grade_class.py --compile '$(COMPILE)' $(if $(LIMIT),--limit '$(LIMIT)') \
	    $(if $(filter no,$(NAMESPACE)),--no-namespace) -- '$(DIR)'

grade-selftest: all ## the grader on right servers, and on one for each way to be wrong: 3 minutes
	@tests/grader/selftest.py $(ONLY)
