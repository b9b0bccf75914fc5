"""The model card: the manifest, rendered for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from models_registry.manifest import Manifest


def card_text(manifest: Manifest) -> str:
    """The card of a version in Markdown, kept beside its files as `MODEL_CARD.md`."""
    return "\n".join(_lines(manifest)) + "\n"


def _lines(manifest: Manifest) -> Iterator[str]:
    lineage = manifest.lineage
    yield f"# {manifest.version}"
    yield ""
    yield "An image-captioning model: a photo goes in, a sentence comes out."
    yield ""
    facts = {
        "Model": manifest.model_name,
        "Comes from": manifest.origin,
        "Licence": manifest.licence,
        "Published": manifest.published_at,
        "Champion when it was trained": lineage.parent,
        "Trained from": lineage.base,
        "Code revision": lineage.code_revision,
        "Seed": lineage.seed,
        "Preprocessing": lineage.preprocessing_signature,
    }
    yield from _table(("", ""), {name: value for name, value in facts.items() if value not in (None, "")})
    if lineage.data:
        yield from _section("Data")
        data = {"Kept at": lineage.data.uri, "SHA-256": lineage.data.sha256, **lineage.data.counts}
        yield from _table(("", ""), data)
    for name, metrics in lineage.metrics.items():
        yield from _section(f"Quality on {name}")
        yield from _table(("Metric", "Value"), metrics)
    for title, values in (
        ("Verdict of the gate", lineage.gate),
        ("Decoding", lineage.decoding),
        ("Training configuration", lineage.config),
        ("Environment", lineage.environment),
    ):
        if values:
            yield from _section(title)
            yield from _table(("", ""), values)
    yield from _section("Files")
    yield "| File | Bytes | SHA-256 |"
    yield "|---|---|---|"
    yield from (f"| {_cell(entry.name)} | {entry.size} | {entry.sha256} |" for entry in manifest.files)


def _section(title: str) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""


def _table(head: tuple[str, str], rows: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {head[0]} | {head[1]} |"
    yield "|---|---|"
    yield from (f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
