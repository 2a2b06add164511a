"""A run: plan, recall, build, train, record."""
