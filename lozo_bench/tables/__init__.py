"""Tables of results: list the runs of a sweep, select among a grid's points, print the table."""
