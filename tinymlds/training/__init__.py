"""Trains networks: data, loop, metrics, backends."""
