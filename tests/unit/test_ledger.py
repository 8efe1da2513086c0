"""Orders against payments: nothing lost, nothing doubled, nothing unpaid."""

import random

import pytest

from hikeshi.drill.ledger import Order, Payment, differences

ORDERS = [Order("100001", 1200, "pi_1"), Order("100002", 800, "pi_2")]
PAID = [Payment("pi_1", 1200, "succeeded", "100001"), Payment("pi_2", 800, "succeeded", "100002")]


def test_what_fits_is_silent() -> None:
    held = Payment("pi_9", 500, "requires_capture", "100009")  # held and given up: no money was taken
    assert differences(ORDERS, [*PAID, held], ["100001"]) == []


@pytest.mark.parametrize(
    ("orders", "paid", "seen", "words"),
    [
        (ORDERS, PAID[:1], [], "order 100002 stands without a payment"),
        (ORDERS, [PAID[0], Payment("pi_2", 800, "requires_capture", "100002")], [], "order 100002 stands without"),
        (ORDERS[:1], PAID, [], "payment pi_2 of 800 yen was taken and has no order"),
        (ORDERS, [*PAID, Payment("pi_3", 800, "succeeded", "100002")], [], "order 100002 was paid 2 times"),
        (ORDERS, [PAID[0], Payment("pi_2", 80, "succeeded", "100002")], [], "the gateway took 80 as pi_2"),
        (ORDERS, PAID, ["100003"], "order 100003 was shown to a customer and is not in the database"),
    ],
)
def test_each_difference_is_said(orders: list[Order], paid: list[Payment], seen: list[str], words: str) -> None:
    (sentence,) = differences(orders, paid, seen)
    assert words in sentence


def test_any_single_loss_is_found() -> None:
    chance = random.Random(7)
    orders = [Order(str(100000 + n), 100 + n, f"pi_{n}") for n in range(50)]
    paid = [Payment(order.payment, order.yen, "succeeded", order.number) for order in orders]
    chance.shuffle(paid)
    for index in range(50):
        assert len(differences(orders[:index] + orders[index + 1 :], paid)) == 1
        assert len(differences(orders, paid[:index] + paid[index + 1 :])) == 1
