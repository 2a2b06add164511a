"""A run's folder: what is finished, what failed, who works in it, and from where to go on."""
