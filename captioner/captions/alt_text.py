"""What makes a caption a good alternative text for a photo on a web page."""

import re

ALT_MAX_LENGTH = 125  # characters: what screen readers of old read in one go, and a good measure still
_REDUNDANT = re.compile(
    r"^\W*(?:an?|the)?\s*(?:\w+\s+)?(?:photo(?:graph)?|picture|image|pic|snapshot)s?\s+(?:of|showing)\b",
    re.IGNORECASE,
)


def alt_hints(text: str) -> list[str]:
    """What could be better about `text` as an alternative text, in words; nothing where it is fine."""
    hints = []
    if len(text) > ALT_MAX_LENGTH:
        hints.append(f"Long for alt text: {len(text)} characters; {ALT_MAX_LENGTH} are usual at most.")
    if _REDUNDANT.match(text):
        hints.append("Leave out “photo of”: screen readers say that it is an image.")
    return hints
