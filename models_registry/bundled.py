"""The starter weights that come with the release."""

from pathlib import Path

from models_registry.exceptions import VersionExists
from models_registry.models import Alias, ModelVersion, Promotion
from models_registry.promotions import version_promote
from models_registry.versions import version_get, version_publish

STARTER_DIR = Path(__file__).resolve().parent / "starter"
STARTER_NAME = "captioner-starter"


def starter_register() -> ModelVersion:
    """Publish the bundled starter weights, and promote them unless something better than a starter serves already.

    A store that lost or damaged them, or was changed for another one, gets them again.
    """
    try:
        version = version_publish(
            STARTER_DIR,
            model_name=STARTER_NAME,
            origin="bundled with the release",
            licence="non-commercial research and education; see the model card",
        )
    except VersionExists as error:
        version = version_get(error.version)
    champion = Alias.objects.select_related("version").filter(name=Alias.Name.CHAMPION).first()
    if champion is None or champion.version.model_name == STARTER_NAME:
        version_promote(version, reason="Bundled starter weights", cause=Promotion.Cause.RELEASE)
    return version
