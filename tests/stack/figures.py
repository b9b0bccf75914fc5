"""What the stack tests measured; shown at the end of a run, whatever its result."""

SHOWN: list[str] = []


def show(figure: str) -> None:
    SHOWN.append(figure)
