"""payment_gateway: money is held, taken and given back over the Stripe API, and remembered over a restart."""

import json
import shlex
from typing import Any

import pytest
from testinfra.host import Host

from tests.infra.asking import must, wait_until

CALL = """
import base64, json, sys, urllib.error, urllib.parse, urllib.request
address, path, data, key = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
body = None if data is None else urllib.parse.urlencode(data).encode()
request = urllib.request.Request(f"http://{address}:8420{path}", body)
request.add_header("Authorization", "Basic " + base64.b64encode(f"{key}:".encode()).decode())
try:
    answer = urllib.request.urlopen(request, timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, json.load(answer)]))
"""


def call(
    host: Host, path: str, data: dict[str, Any] | None = None, address: str = "127.0.0.1", key: str = "sk_test"
) -> tuple[int, Any]:
    """Send a request as the shop would; with data, be it empty, it is a POST."""
    words = [address, path, json.dumps(data), key]
    said = must(host, f"python3 -c {shlex.quote(CALL)} " + " ".join(map(shlex.quote, words)))
    status, answer = json.loads(said)
    return status, answer


def card(host: Host, number: str = "4242424242424242") -> str:
    data = {"type": "card", "card[number]": number, "card[exp_month]": 12, "card[exp_year]": 2030, "card[cvc]": "123"}
    status, answer = call(host, "/v1/payment_methods", data)
    assert status == 200, answer
    return str(answer["id"])


def hold(host: Host, method: str) -> Any:
    data = {"amount": 1200, "currency": "jpy", "payment_method": method, "capture_method": "manual", "confirm": "true"}
    return call(host, "/v1/payment_intents", data)


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
def test_it_answers_on_both_families(host: Host, address: str) -> None:
    status, answer = call(host, "/v1/payment_intents?limit=1", address=address)
    assert (status, answer["object"]) == (200, "list")


def test_money_is_held_and_then_taken(host: Host) -> None:
    status, intent = hold(host, card(host))
    assert (status, intent["status"]) == (200, "requires_capture")
    status, taken = call(host, f"/v1/payment_intents/{intent['id']}/capture", {})
    assert (status, taken["status"]) == (200, "succeeded")


def test_held_money_is_given_back(host: Host) -> None:
    _, intent = hold(host, card(host))
    status, freed = call(host, f"/v1/payment_intents/{intent['id']}/cancel", {})
    assert (status, freed["status"]) == (200, "canceled")


def test_declined_card_is_refused(host: Host) -> None:
    status, answer = hold(host, card(host, "4000000000000341"))
    assert (status, answer["error"]["code"]) == (402, "card_declined")


def test_nobody_without_a_key(host: Host) -> None:
    assert call(host, "/v1/payment_intents", key="guess")[0] == 401


def test_payments_outlive_a_restart(host: Host) -> None:
    _, intent = hold(host, card(host))
    must(host, "systemctl restart payment-gateway")
    wait_until(lambda: bool(must(host, "ss -Hlnt 'sport = :8420'")))
    status, answer = call(host, f"/v1/payment_intents/{intent['id']}")
    assert (status, answer["status"]) == (200, "requires_capture")


def test_it_runs_as_nobody_else(host: Host) -> None:
    user = must(host, "ps -o user= -p $(systemctl show --property=MainPID --value payment-gateway)").strip()
    assert user not in ("root", "nobody", "")
    assert must(host, "stat --format=%a /var/lib/private").strip() == "700"
