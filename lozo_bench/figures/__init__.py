"""The papers' figures from finished runs."""
