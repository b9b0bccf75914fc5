"""Photos to captions: loading, preprocessing, decoding and micro-batching. Torch lives here, Django does not.

Importing this package, or `captioner.inference.types`, imports no torch; the other modules do.
"""
