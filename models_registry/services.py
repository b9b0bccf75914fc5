"""The registry's verbs: publish a version, promote it, find what serves, fetch its files."""

from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from models_registry import storage
from models_registry.exceptions import NoChampion, RegistryError, VersionExists
from models_registry.manifest import FileEntry, Manifest, content_sha256, folder_entries
from models_registry.models import Alias, ModelVersion, Promotion

STARTER_DIR = Path(__file__).resolve().parent / "starter"
_STARTER_NAME = "captioner-starter"


def version_publish(
    folder: Path, *, model_name: str, origin: str, licence: str, patterns: Sequence[str] = ("*",)
) -> ModelVersion:
    """Publish the files of `folder` that match `patterns` as an immutable version, named after their content.

    Raises `VersionExists` if the same content was published before, `RegistryError` if no file matches.
    """
    entries = folder_entries(folder, patterns)
    if not entries:
        raise RegistryError(f"{folder} holds no files to publish; looked for {', '.join(patterns)}.")
    version = _version_id(model_name, entries)
    if ModelVersion.objects.filter(pk=version).exists():
        raise VersionExists(f"Version {version} was published before; versions are immutable.")
    manifest = Manifest(version=version, model_name=model_name, origin=origin, licence=licence, files=entries)
    storage.version_write(folder, manifest)
    try:
        with transaction.atomic():
            return ModelVersion.objects.create(id=version, model_name=model_name, manifest=manifest.to_dict())
    except IntegrityError:
        raise VersionExists(f"Version {version} was published by another process just now.") from None


def version_promote(version: ModelVersion, *, reason: str, by: User | None = None) -> None:
    """Make `version` the champion and log it; promoting what already serves changes nothing."""
    with transaction.atomic():
        alias = Alias.objects.select_for_update().filter(name=Alias.Name.CHAMPION).first()
        if alias is not None and alias.version_id == version.pk:
            return
        Alias.objects.update_or_create(name=Alias.Name.CHAMPION, defaults={"version": version})
        Promotion.objects.create(alias=Alias.Name.CHAMPION, version=version, promoted_by=by, reason=reason)


def champion_get() -> ModelVersion:
    """The version that serves. Raises `NoChampion`."""
    alias = Alias.objects.select_related("version").filter(name=Alias.Name.CHAMPION).first()
    if alias is None:
        raise NoChampion(
            "No model has been promoted yet. Run `manage.py setup` to register the bundled starter."
        )
    return alias.version


def version_fetch(version: ModelVersion) -> Path:
    """A local folder with the verified files of `version`. Raises `VersionCorrupt`."""
    return storage.version_read(version.pk, settings.DATA_DIR / "model-cache")


def starter_register() -> ModelVersion:
    """Publish the bundled starter weights, and promote them unless something better than a starter serves already.

    A store that lost them, or was changed for another one, gets them again.
    """
    version_pk = _version_id(_STARTER_NAME, folder_entries(STARTER_DIR))
    version = ModelVersion.objects.filter(pk=version_pk).first()
    if version is None:
        version = version_publish(
            STARTER_DIR,
            model_name=_STARTER_NAME,
            origin="bundled with the release",
            licence="non-commercial research and education; see the model card",
        )
    elif not storage.version_exists(version_pk):
        storage.version_write(STARTER_DIR, Manifest.from_dict(version.manifest))
    champion = Alias.objects.select_related("version").filter(name=Alias.Name.CHAMPION).first()
    if champion is None or champion.version.model_name == _STARTER_NAME:
        version_promote(version, reason="Bundled starter weights")
    return version


def _version_id(model_name: str, entries: tuple[FileEntry, ...]) -> str:
    """An id that names the content: the same files always get the same one."""
    return f"{slugify(model_name)}-{content_sha256(entries)[:10]}"
