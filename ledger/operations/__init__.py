"""The operators' desk: what never came, what was asked of support, and what came of it."""
