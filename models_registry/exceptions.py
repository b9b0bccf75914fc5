"""What can go wrong with versions of weights."""


class RegistryError(Exception):
    """Base of this app's errors; `str(error)` is fit to be shown to a person."""


class VersionExists(RegistryError):
    """These files were published before, as the version of the id `version`; versions are immutable."""

    def __init__(self, message: str, version: str) -> None:
        super().__init__(message)
        self.version = version


class VersionUnknown(RegistryError):
    """No version has this id."""


class VersionCorrupt(RegistryError):
    """A stored version is incomplete or its bytes do not match its manifest; it must not be served."""


class StoreUnavailable(RegistryError):
    """The store of the weights cannot be reached, or refuses us; nothing is known about the version."""


class NoChampion(RegistryError):
    """No version has been promoted yet, so there is nothing to serve."""


class NotPromotable(RegistryError):
    """This version cannot take this alias, or there is nothing to roll back to."""


class AppendOnly(RegistryError):
    """The promotion log only grows."""
