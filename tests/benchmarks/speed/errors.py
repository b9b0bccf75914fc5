class BenchmarkError(Exception):
    """The comparison could not be made; `str(error)` says why and what to do."""


class NotReady(BenchmarkError):
    """A server did not answer, or said that it cannot yet; it may when asked later."""
