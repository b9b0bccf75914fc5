from django.db import migrations


def examples_remove(apps, schema_editor):
    """Reports of earlier releases held sentences of people, and of versions about their photos."""
    log = apps.get_model("models_registry", "Promotion").objects.using(schema_editor.connection.alias)
    for entry in log.filter(report__has_key="examples").iterator(chunk_size=100):
        del entry.report["examples"]
        log.filter(pk=entry.pk).update(report=entry.report)


class Migration(migrations.Migration):
    dependencies = [("models_registry", "0007_deleted_rows")]

    operations = [migrations.RunPython(examples_remove, migrations.RunPython.noop, elidable=True)]
