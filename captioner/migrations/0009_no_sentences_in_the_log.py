from django.db import migrations
from django.db.models import F, Value
from django.db.models.functions import Concat


def log_clean(apps, schema_editor):
    """The admin's log named captions and feedback by what they said, also those that were deleted since."""
    database = schema_editor.connection.alias
    kinds = apps.get_model("contenttypes", "ContentType").objects.using(database)
    log = apps.get_model("admin", "LogEntry").objects.using(database)
    for kind in kinds.filter(app_label="captioner", model__in=("caption", "feedback")):
        log.filter(content_type_id=kind.pk).update(object_repr=Concat(Value(f"{kind.model} "), F("object_id")))


class Migration(migrations.Migration):
    dependencies = [
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("captioner", "0008_uses_and_preferences"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(log_clean, migrations.RunPython.noop, elidable=True)]
