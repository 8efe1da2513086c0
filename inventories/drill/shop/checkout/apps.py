"""Oscar's checkout, forked so that it takes money."""

from oscar.apps.checkout import apps


class CheckoutConfig(apps.CheckoutConfig):
    name = "checkout"
