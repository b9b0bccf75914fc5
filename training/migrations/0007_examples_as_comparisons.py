from django.db import migrations


def examples_move(apps, schema_editor):
    """Reports of earlier releases held sentences; what versions said of photos that exist is kept with these."""
    database = schema_editor.connection.alias
    runs = apps.get_model("training", "TrainingRun").objects.using(database)
    Photo, Comparison = apps.get_model("captioner", "Photo"), apps.get_model("training", "Comparison")
    for run in runs.filter(report__has_key="examples").iterator(chunk_size=100):
        examples = {example["photo"]: example for example in run.report.pop("examples")}
        photos = Photo.objects.using(database).filter(sha256__in=list(examples))
        Comparison.objects.using(database).bulk_create(
            [
                Comparison(
                    run_id=run.pk,
                    photo_id=photo.pk,
                    candidate=examples[photo.sha256]["after"],
                    champion=examples[photo.sha256]["before"],
                )
                for photo in photos
            ],
            ignore_conflicts=True,
        )
        runs.filter(pk=run.pk).update(report=run.report)


class Migration(migrations.Migration):
    dependencies = [("training", "0006_votes_and_blind_captions")]

    operations = [migrations.RunPython(examples_move, migrations.RunPython.noop, elidable=True)]
