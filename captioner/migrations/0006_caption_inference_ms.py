from django.db import migrations, models


class Migration(migrations.Migration):
    """Captions of before have none: filling a large table would lock it while the release before still serves."""

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
    ]
