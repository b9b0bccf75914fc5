"""How fast this machine captions: `python -m tests.benchmarks.speed`, or `make bench`."""
