"""The drill's own truth about money: every order the shop holds against every payment the gateway holds.

The probe only sees what a customer sees; this looks into the shop's database (by ssh) and asks the gateway (through the
practice network). It belongs to the drill: recovery never reads it.
"""

import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from hikeshi import probes
from hikeshi.errors import HikeshiError
from hikeshi.site import Site, View, read_yaml
from hikeshi.text import printable

GATEWAY_PORT = 8420
PAGE = 100  # payments asked for at a time; the most the Stripe API gives
QUERY = (
    "SELECT o.number, CAST(o.total_incl_tax AS SIGNED), COALESCE(s.reference, '')"
    " FROM order_order o LEFT JOIN payment_source s ON s.order_id = o.id ORDER BY o.id"
)


@dataclass(frozen=True)
class Order:
    """One order of the shop's database; `payment` is what the gateway calls its payment, "" where there is none."""

    number: str
    yen: int
    payment: str


@dataclass(frozen=True)
class Payment:
    """One payment of the gateway's; only `succeeded` means that money was taken."""

    id: str
    yen: int
    status: str
    order: str

    @property
    def taken(self) -> bool:
        """True when the customer's money is gone."""
        return self.status == "succeeded"


def run_on(site: Site, host: str, script: str, *, root: bool = True) -> str:
    """Run a shell script on a practice host by ssh; return its output. Raises HikeshiError, with its words."""
    command = ["ssh", *site.ssh_arguments, "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", host,
               "sudo sh -se" if root else "sh -se"]  # fmt: skip
    done = subprocess.run(command, input=script.encode(), capture_output=True, timeout=120, check=False)
    if done.returncode:
        words = printable(done.stderr.decode(errors="replace").strip() or "no word", 400)
        raise HikeshiError(f"{host}: exit status {done.returncode}: {words}")
    return done.stdout.decode(errors="replace")


def orders(site: Site) -> list[Order]:
    """Return every order in the shop's database, one entry for each payment an order names."""
    rows = run_on(site, "web1", f'mariadb --batch --skip-column-names shop -e "{QUERY}"')
    cells = (line.split("\t") for line in rows.splitlines())
    return [Order(number, int(yen), payment) for number, yen, payment in cells]


def payments(site: Site) -> list[Payment]:
    """Return every payment that the gateway holds, newest first."""
    address = read_yaml(site.private / "hosts.yml")["all"]["hosts"]["pay1"]["practice_ipv4"]
    key = read_yaml(site.private / "group_vars" / "all" / "secrets.yml")["secret_shop_payment_key"]
    view = View(url=f"http://{address}:{GATEWAY_PORT}", via="client1")
    found: list[Payment] = []
    with (
        probes.tunnel(site, view) as proxy,
        httpx.Client(proxy=proxy, trust_env=False, auth=(key, ""), timeout=20) as client,
    ):
        after: dict[str, str] = {}
        while True:
            answer = client.get(f"{view.url}/v1/payment_intents", params={"limit": str(PAGE), **after})
            answer.raise_for_status()
            page = answer.json()
            for item in page["data"]:
                order = str(item["metadata"].get("order_number", ""))
                found.append(Payment(item["id"], int(item["amount"]), item["status"], order))
            if not page.get("has_more"):
                return found
            after = {"starting_after": found[-1].id}


def differences(held: Iterable[Order], paid: Iterable[Payment], seen: Iterable[str] = ()) -> list[str]:
    """Return, in sentences, everything that is wrong between orders, payments and what customers saw. Pure.

    `seen` are the order numbers that stood on customers' screens.
    """
    by_number: dict[str, list[Order]] = defaultdict(list)
    for order in held:
        by_number[order.number].append(order)
    taken: dict[str, list[Payment]] = defaultdict(list)
    for payment in paid:
        if payment.taken:
            taken[payment.order].append(payment)
    wrong = [f"order {number} was shown to a customer and is not in the database" for number in sorted(seen)
             if number not in by_number]  # fmt: skip
    for number, entries in sorted(by_number.items()):
        money = taken.get(number, [])
        if not money:
            wrong.append(f"order {number} stands without a payment")
        elif len(money) > 1:
            wrong.append(f"order {number} was paid {len(money)} times: {', '.join(item.id for item in money)}")
        elif (money[0].id, money[0].yen) != (entries[0].payment, entries[0].yen):
            wrong.append(
                f"order {number} of {entries[0].yen} yen names payment {entries[0].payment or 'none'}, "
                f"the gateway took {money[0].yen} as {money[0].id}"
            )
    for number in sorted(taken.keys() - by_number.keys()):
        wrong += [f"payment {item.id} of {item.yen} yen was taken and has no order" for item in taken[number]]
    return wrong


def audit(site: Site, seen: Iterable[str] = ()) -> tuple[int, list[str]]:
    """Return how many orders stand, and what is wrong with them."""
    held = orders(site)
    return len({order.number for order in held}), differences(held, payments(site), seen)
