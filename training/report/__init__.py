"""Scores of an evaluation, and their figures."""
