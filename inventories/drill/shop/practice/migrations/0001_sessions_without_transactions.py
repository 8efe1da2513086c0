"""Keep the sessions in a table without transactions, as shops did for speed: a crash may leave it to be repaired."""

from django.db import migrations


class Migration(migrations.Migration):
    """Move the table to another engine; nothing refers to it by a foreign key."""

    dependencies = [("sessions", "0001_initial")]
    operations = [
        migrations.RunSQL(
            "ALTER TABLE django_session ENGINE=Aria TRANSACTIONAL=0",
            reverse_sql="ALTER TABLE django_session ENGINE=InnoDB",
        )
    ]
