"""Captioners of the hub that are offered by name. No Django: a table, for pages."""

from typing import NamedTuple


class KnownModel(NamedTuple):
    """A model whose class, size and file names imports were tried with, with random weights in them."""

    hub_id: str
    licence: str
    download_gb: float


KNOWN_MODELS = (KnownModel("Salesforce/blip-image-captioning-base", "BSD 3-Clause", 0.99),)
