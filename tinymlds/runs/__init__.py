"""Runs: from what is asked for to a sealed folder."""
