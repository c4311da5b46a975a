"""Zero-shot editing with a consistency model, which the command `edit` does."""
