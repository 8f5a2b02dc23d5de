"""Chaos: real managers under faults, with a check of what their clients saw. Not part of what is installed."""
