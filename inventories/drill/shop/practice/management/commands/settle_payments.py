"""Take the money of orders that stand, where a broken connection or a restart kept the shop from it."""

from typing import Any

from checkout import gateway
from django.core.management.base import BaseCommand
from oscar.core.loading import get_model

Source = get_model("payment", "Source")


class Command(BaseCommand):
    """Take what is held and not taken; the last line says ``changed`` or ``unchanged``."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        """Go through every payment that is noted as held only."""
        changed = False
        for source in Source.objects.filter(amount_debited=0).exclude(reference=""):
            gateway.take(source.reference)
            source.amount_debited = source.amount_allocated
            source.save(update_fields=["amount_debited"])
            self.stdout.write(f"order {source.order.number}: {source.amount_debited} taken")
            changed = True
        self.stdout.write("changed" if changed else "unchanged")
