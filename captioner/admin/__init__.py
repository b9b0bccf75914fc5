"""The administrators' side. Django looks for `captioner.admin`; each module registers its models."""

from captioner.admin import records, users  # noqa: F401  they register what they show
