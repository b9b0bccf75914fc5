import re

import django.utils.timezone
from django.db import migrations, models

# How the promotions were told apart that earlier releases logged.
_BY_RUN = re.compile(r"Passed the gate in training run (\d+):")
_BY_RELEASE = "Bundled starter weights"


def causes_fill(apps, schema_editor):
    Promotion = apps.get_model("models_registry", "Promotion")
    log = Promotion.objects.using(schema_editor.connection.alias)
    log.filter(action="clear", report__isnull=False).update(cause="breach")
    log.filter(action="promote", reason=_BY_RELEASE, promoted_by=None).update(cause="release")
    for entry in log.filter(action="promote", promoted_by=None, reason__startswith="Passed the gate in"):
        if match := _BY_RUN.match(entry.reason):
            log.filter(pk=entry.pk).update(cause="run", training_run=int(match.group(1)))


class Migration(migrations.Migration):
    dependencies = [("models_registry", "0005_rollout_help")]

    operations = [
        migrations.AddField(
            "promotion",
            "cause",
            models.CharField(
                choices=[
                    ("person", "A person"),
                    ("run", "A training run whose candidate passed the gate"),
                    ("breach", "A challenger that breached a limit of its rollout"),
                    ("release", "The starter that comes with a release"),
                ],
                db_default="person",  # also written by the release before, which does not know the column
                default="person",
                max_length=20,
            ),
        ),
        migrations.AddField(
            "promotion",
            "training_run",
            models.PositiveBigIntegerField(
                blank=True,
                help_text="The number of the run whose candidate it was, where a run is the cause.",
                null=True,
            ),
        ),
        migrations.RunPython(causes_fill, migrations.RunPython.noop, elidable=True),
        # It was touched whenever the row was saved, which only a promotion did. The column keeps its name: the release
        # before reads and writes it while this one rolls out.
        migrations.AlterField(
            "alias",
            "updated_at",
            models.DateTimeField(
                db_column="updated_at",
                default=django.utils.timezone.now,
                help_text="When it was pointed at this version.",
            ),
        ),
        migrations.RenameField("alias", "updated_at", "since"),
    ]
