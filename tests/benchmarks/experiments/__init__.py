"""Experiments on the learning loop with simulated users: `make experiment`."""
