"""Scripted trouble: what may go wrong at which step, and scenario files that say when.

Only descriptions and their order live here. The services act on them."""
