"""The payment gateway, over the Stripe API: money is held first, and taken only when the order is in the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stripe
from django.conf import settings
from oscar.apps.payment.exceptions import PaymentError, UnableToTakePayment

# Shorter than a worker's time for a request, so that a gateway that hangs becomes a page with words on it.
TIMEOUT_S = 5


def _client() -> stripe.StripeClient:
    return stripe.StripeClient(
        settings.SHOP_PAYMENT_KEY,
        base_addresses={"api": settings.SHOP_PAYMENT_URL},
        http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        max_network_retries=0,  # the customer decides about a second try, never a library
    )


@contextmanager
def _errors() -> Iterator[None]:
    """Tell a refused card, which is the customer's affair, from a gateway in trouble, which is ours."""
    try:
        yield
    except stripe.CardError as error:
        raise UnableToTakePayment(error.user_message or "Your card was declined.") from error
    except stripe.StripeError as error:
        raise PaymentError(f"{type(error).__name__}: {error}") from error


def card(number: str, month: int, year: int, code: str) -> str:
    """Hand a card over to the gateway; return what it is called there."""
    data: Any = {
        "type": "card",
        "card": {"number": number, "exp_month": month, "exp_year": year, "cvc": code},
    }
    with _errors():
        return _client().v1.payment_methods.create(params=data).id


def hold(method: str, amount: int, order_number: str) -> str:
    """Hold an amount of yen for an order; return the payment's name. The same order is never held twice by a retry."""
    with _errors():
        payment = _client().v1.payment_intents.create(
            params={
                "amount": amount,
                "currency": "jpy",
                "payment_method": method,
                "capture_method": "manual",
                "confirm": True,
                "metadata": {"order_number": order_number},
            },
            options={"idempotency_key": f"order-{order_number}-{method}"},
        )
    if payment.status != "requires_capture":
        raise UnableToTakePayment("Your card asks for a confirmation that this shop cannot give.")
    return payment.id


def take(payment: str) -> None:
    """Take the money that is held; nothing, where it was taken already and nobody was left to write that down."""
    with _errors():
        payments = _client().v1.payment_intents
        taken = payments.retrieve(payment).status == "succeeded"
        if not taken and payments.capture(payment).status != "succeeded":
            raise PaymentError(f"{payment} cannot be taken any more")


def free(payment: str) -> None:
    """Give back the money that is held."""
    with _errors():
        _client().v1.payment_intents.cancel(payment)
