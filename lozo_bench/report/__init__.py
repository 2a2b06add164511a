"""``lozo-report``: sweeps, tables, curves and runs in one HTML file that needs no network."""
