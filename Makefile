install demo test check bench sim help:
	@./dev $@

.PHONY: install demo test check bench sim help
