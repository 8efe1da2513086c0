"""Oscar's checkout with a payment in it. What is not overridden here is Oscar's."""

import logging
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from oscar.apps.checkout import exceptions, views
from oscar.apps.payment.exceptions import PaymentError, UnableToTakePayment
from oscar.core.loading import get_model

from checkout import gateway
from checkout.forms import CardForm

Source = get_model("payment", "Source")
SourceType = get_model("payment", "SourceType")
StockRecord = get_model("partner", "StockRecord")

MOST_AT_ONCE = 5  # orders whose money is taken with one; each costs its customer two requests to the gateway

logger = logging.getLogger("oscar.checkout")


class PaymentDetailsView(views.PaymentDetailsView):
    """Takes a card, shows the order, holds the money, writes the order, takes the money. In this order."""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Offer the form for the card."""
        return {"card_form": CardForm(), **super().get_context_data(**kwargs)}

    def check_payment_data_is_captured(self, request: HttpRequest) -> None:
        """Let nobody see the preview who has not given a card, unless he gives it with this very request."""
        if request.method != "POST" and not self._card():
            raise exceptions.FailedPreCondition(
                url=reverse("checkout:payment-details"), message="Please tell us how you pay."
            )

    def _card(self) -> str:
        return str(self.checkout_session._get("payment", "card") or "")

    def handle_payment_details_submission(self, request: HttpRequest) -> HttpResponse:
        """Give the card to the gateway and keep only its name there."""
        form = CardForm(request.POST)
        if not form.is_valid():
            return self.render_payment_details(request, card_form=form)
        try:
            name = gateway.card(**form.cleaned_data)
        except UnableToTakePayment as refused:
            return self.render_payment_details(request, card_form=form, error=str(refused))
        except PaymentError as trouble:
            logger.error("payment gateway: %s", trouble)
            words = "We cannot reach our payment service. Nothing was charged; please try again in a few minutes."
            return self.render_payment_details(request, card_form=form, error=words)
        self.checkout_session._set("payment", "card", name)
        return self.render_preview(request)

    def handle_payment(self, order_number: str, total: Any, **kwargs: Any) -> None:
        """Hold the money, and note where."""
        if not self._card():
            raise UnableToTakePayment("Please tell us how you pay.")
        self._payment = gateway.hold(self._card(), int(total.incl_tax), str(order_number))
        kind, _ = SourceType.objects.get_or_create(code="card", defaults={"name": "Card"})
        self.add_payment_source(
            Source(
                source_type=kind,
                currency=total.currency,
                amount_allocated=total.incl_tax,
                reference=self._payment,
            )
        )
        self.add_payment_event("Held", total.incl_tax, reference=self._payment)

    def handle_order_placement(self, number: str, user: Any, basket: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """Write the order; take the money when it is in the database for good, give it back when it cannot be."""
        payment = self._payment
        try:
            with transaction.atomic():
                _lock_stock(basket)
                response = super().handle_order_placement(number, user, basket, *args, **kwargs)
        except Exception:
            gateway.free(payment)
            raise
        # robust: the order stands, and its customer must see its number whatever becomes of this; Django logs it.
        transaction.on_commit(_take_held_money, robust=True)
        return response


def _lock_stock(basket: Any) -> None:
    """Take the stock of this order for itself, in the order that all take it.

    To write a line shares the lock of its stock record, by its foreign key; to count it down then needs all of that
    lock: two orders of one product would each wait for the other, and MariaDB would end one of them (error 1213).
    """
    mine = basket.all_lines().values("stockrecord")
    list(StockRecord.objects.select_for_update().filter(id__in=[row["stockrecord"] for row in mine]).order_by("id"))


def _take_held_money() -> None:
    """Take the money of this order, and of the last ones that stand with theirs still held: something came between.

    What fails stays held until the next order; the log and the drill's audit say so. Rows are locked, because two
    workers may be here at once.
    """
    with transaction.atomic():
        held = Source.objects.select_for_update(skip_locked=True).filter(amount_debited=0).order_by("-id")
        for source in held[:MOST_AT_ONCE]:
            try:
                gateway.take(source.reference)
            except (PaymentError, UnableToTakePayment) as trouble:
                logger.error("payment gateway: %s stays held: %s", source.reference, trouble)
                return  # the customer waits for his page
            source.amount_debited = source.amount_allocated
            source.save(update_fields=["amount_debited"])
