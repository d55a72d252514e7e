"""Verifies datasets, and merges their parts."""
