"""Figures from real runs, a module a subject. What is measured here is never decided here: no figure is a test."""
