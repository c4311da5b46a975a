"""The parts of `edit`: zero-shot editing with a consistency model."""
