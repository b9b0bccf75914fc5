"""Captioners of the hub that are known to work here. No Django: a table, for pages."""

from typing import NamedTuple


class KnownModel(NamedTuple):
    """What it takes to serve a model; figures of `deploy/CAPACITY.md`, of weights in this shape."""

    hub_id: str
    licence: str
    download_gb: float
    memory_gb: float  # of a web process, while the next version of it is loaded
    seconds: float  # for one photo that comes alone, on two cores


KNOWN_MODELS = (KnownModel("Salesforce/blip-image-captioning-base", "BSD 3-Clause", 0.99, 2.9, 1.0),)
