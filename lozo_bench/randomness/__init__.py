"""Random numbers keyed by run seed, role, step and parameter."""
