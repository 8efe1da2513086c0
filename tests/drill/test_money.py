"""On the real shop: an order without its payment, and a payment without its order, each make the audit fail."""

from pathlib import Path

import pytest

from hikeshi.drill import ledger
from hikeshi.site import load
from tests.drill.conftest import hikeshi, ssh


def shop(statement: str) -> None:
    """Have the shop's database carry out a statement."""
    ssh("web1", f'mariadb shop -e "{statement}"')


# What happens to the order, its way back, and what the audit says of it; the name of the payment is the gateway's.
RENAMED = (
    "UPDATE order_order SET number = 'gone-{number}' WHERE number = '{number}'",
    "UPDATE order_order SET number = '{number}' WHERE number = 'gone-{number}'",
    ["order gone-{number} stands without a payment", "payment {payment} of {yen} yen was taken and has no order"],
)
ANOTHERS = (
    "UPDATE payment_source SET reference = 'pi_anothers' WHERE reference = '{payment}'",
    "UPDATE payment_source SET reference = '{payment}' WHERE reference = 'pi_anothers'",
    ["order {number} of {yen} yen names payment pi_anothers, the gateway took {yen} as {payment}"],
)


@pytest.mark.parametrize(("change", "back", "words"), [RENAMED, ANOTHERS], ids=["renamed", "anothers"])
def test_audit_names_what_does_not_belong_together(whole: Path, change: str, back: str, words: list[str]) -> None:
    (bought,) = hikeshi("probe", "checkout", "--json").data
    site, number = load("drill"), bought["noted"]["order"]
    assert hikeshi("drill", "audit").status == 0
    (order,) = [item for item in ledger.orders(site) if item.number == number]
    about = {"number": number, "payment": order.payment, "yen": order.yen}
    shop(change.format(**about))
    try:
        done = hikeshi("drill", "audit", "--json")
        seen = ledger.audit(site, [number])[1]
    finally:
        shop(back.format(**about))
    assert done.status == 1
    assert done.data["wrong"] == [sentence.format(**about) for sentence in words]
    lost = [f"order {number} was shown to a customer and is not in the database"] if "gone" in change else []
    assert seen == lost + done.data["wrong"]
    assert hikeshi("drill", "audit").status == 0
