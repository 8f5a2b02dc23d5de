"""Measurements of the whole thing, side by side with what else is installed; run with ./dev bench."""
