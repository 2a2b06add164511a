"""The trackers that a run's numbers go to besides its own files: one small file for each.

A tracker is a class that a file of ``conf/tracking`` names in ``tracking.trackers``. It is made
with an `About` as its only positional argument, and has the methods of `Destination`.
"""
