from django.db import migrations, models
from django.db.models.fields.json import KT
from django.db.models.functions import Cast


def inference_ms_fill(apps, schema_editor):
    """From the steps, which earlier releases read it from."""
    Caption = apps.get_model("captioner", "Caption")
    captions = Caption.objects.using(schema_editor.connection.alias)
    captions.update(inference_ms=Cast(KT("timings_ms__inference"), models.FloatField()))


class Migration(migrations.Migration):
    dependencies = [("captioner", "0005_batch_size")]

    operations = [
        migrations.AddField(
            "caption",
            "inference_ms",
            models.FloatField(blank=True, help_text="Milliseconds of the whole batch.", null=True),
        ),
        migrations.AlterField(
            "caption",
            "timings_ms",
            models.JSONField(
                default=dict,
                help_text="Milliseconds spent per step, to be shown; of inference, those of the whole batch.",
            ),
        ),
        migrations.RunPython(inference_ms_fill, migrations.RunPython.noop, elidable=True),
    ]
