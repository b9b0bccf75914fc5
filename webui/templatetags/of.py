"""Templates look up what is known of a row that they show."""

from collections.abc import Mapping
from typing import Any

from django import template

from captioner.models import Caption

register = template.Library()


@register.filter
def of(known: Mapping[Any, object] | str, caption: Caption) -> object:
    """What is known of this caption by its id; nothing on pages that look nothing up."""
    return known.get(caption.pk) if isinstance(known, Mapping) else None
