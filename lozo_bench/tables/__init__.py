"""Tables of results: a sweep's cells, what was chosen among them, and how it is printed."""
