"""Experiments on the learning loop with simulated users: what `manage.py experiment` runs."""
