"""Measurements; each prints ratios against a plain implementation in the same run."""
