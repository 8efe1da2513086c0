"""Fill the practice shop: categories, lanterns with stock, price and picture, a shipping country, the search index."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import transaction
from haystack import connections
from oscar.apps.catalogue.categories import create_from_breadcrumbs
from oscar.core.loading import get_model
from sorl.thumbnail import default as sorl

from practice import pictures

Country = get_model("address", "Country")
Category = get_model("catalogue", "Category")
Product = get_model("catalogue", "Product")
ProductCategory = get_model("catalogue", "ProductCategory")
ProductClass = get_model("catalogue", "ProductClass")
ProductImage = get_model("catalogue", "ProductImage")
Partner = get_model("partner", "Partner")
StockRecord = get_model("partner", "StockRecord")

CATEGORIES = ("Paper lanterns", "Festival lanterns", "Table lamps")


class Command(BaseCommand):
    """Create what is missing and leave what is there; the last line says ``changed`` or ``unchanged``."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        """Seed the database, then the pictures, then the search index."""
        with transaction.atomic():
            rows = self._rows()
        files = self._pictures()
        index = self._index(stale=bool(rows))
        for count, what in ((rows, "rows created"), (files, "pictures written"), (index, "products indexed")):
            if count:
                self.stdout.write(f"{count} {what}")
        self.stdout.write("changed" if rows or files or index else "unchanged")

    def _rows(self) -> int:
        """Create the missing rows and say how many."""
        created = 0

        def ensure(model: Any, defaults: dict[str, Any] | None = None, **key: Any) -> Any:
            nonlocal created
            row, new = model.objects.get_or_create(**key, defaults=defaults or {})
            created += new
            return row

        # With a single country the address form drops the field, as a small domestic shop's does.
        ensure(Country, iso_3166_1_a2="JP", defaults={
            "iso_3166_1_a3": "JPN",
            "iso_3166_1_numeric": "392",
            "printable_name": "Japan",
            "name": "Japan",
            "is_shipping_country": True,
        })  # fmt: skip
        lantern = ensure(ProductClass, name="Lantern", defaults={"requires_shipping": True, "track_stock": True})
        partner = ensure(Partner, code="hikari", defaults={"name": "Hikari workshop"})
        categories = []
        for name in CATEGORIES:
            category = Category.objects.filter(name=name, depth=1).first()
            if category is None:
                category = create_from_breadcrumbs(name)
                created += 1
            categories.append(category)

        for number in range(1, pictures.COUNT + 1):
            title = f"Lantern {number:02d}"
            product = ensure(Product, upc=f"LANTERN-{number:02d}", defaults={
                "title": title,
                "slug": f"lantern-{number:02d}",
                "product_class": lantern,
                "structure": Product.STANDALONE,
                "description": f"<p>提灯 {number:02d} 号。和紙と竹。 A lantern of paper and bamboo.</p>",
            })  # fmt: skip
            ensure(ProductCategory, product=product, category=categories[number % len(categories)])
            ensure(StockRecord, product=product, partner=partner, defaults={
                "partner_sku": f"HIKARI-{number:02d}",
                "price_currency": settings.OSCAR_DEFAULT_CURRENCY,
                "price": Decimal(800 + 150 * number),
                "num_in_stock": 100_000,
            })  # fmt: skip
            ensure(ProductImage, product=product, display_order=0, defaults={
                "original": _name(number),
                "caption": title,
            })  # fmt: skip
        return created

    def _pictures(self) -> int:
        """Write the missing picture files and say how many."""
        folder = Path(settings.MEDIA_ROOT, settings.OSCAR_IMAGE_FOLDER)
        folder.mkdir(mode=settings.FILE_UPLOAD_DIRECTORY_PERMISSIONS, parents=True, exist_ok=True)
        paths = {number: Path(settings.MEDIA_ROOT, _name(number)) for number in range(1, pictures.COUNT + 1)}
        missing = [number for number, path in paths.items() if not path.is_file()]
        for number in missing:
            pictures.write(number, paths[number])
        if missing:
            # Where pictures were lost, their thumbnails were too, but the database still promises them to the pages.
            sorl.kvstore.cleanup()
        return len(missing)

    def _index(self, *, stale: bool) -> int:
        """Rebuild the search index if it does not hold every product, and say how many it holds then."""
        products = Product.objects.browsable().count()
        if not stale and self._indexed() == products:
            return 0
        call_command("rebuild_index", interactive=False, verbosity=0)
        return products

    @staticmethod
    def _indexed() -> int:
        """Return how many documents the index holds; -1 when it cannot be read."""
        backend = connections["default"].get_backend()
        try:
            backend.setup()
            return int(backend.index.doc_count())
        except Exception:  # noqa: BLE001 - Whoosh raises whatever it stumbles over; each means: build it again
            return -1


def _name(number: int) -> str:
    return f"{settings.OSCAR_IMAGE_FOLDER}lantern-{number:02d}.jpg"
