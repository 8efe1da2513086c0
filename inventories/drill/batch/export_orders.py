#!/usr/bin/python3
"""Export the orders of one day from the shop's database (django-oscar 4.2) to a CSV file, a row a line of an order.

    export_orders.py [--day YYYY-MM-DD]        without a day: yesterday, by this host's clock

The environment says where: EXPORT_DATABASE_HOST, EXPORT_DATABASE_NAME, EXPORT_DATABASE_USER, EXPORT_DATABASE_PASSWORD,
EXPORT_DIRECTORY (the file is orders-YYYY-MM-DD.csv in it) and EXPORT_LOCK (a file with the PID of a running export).

The file is written whole or not at all; a day without orders is a file with its heading alone. One export runs at a
time: whoever finds the lock stops, and never judges whose it is. Exit status: 0 written · 1 the database or the disk
said no · 2 usage · 75 the lock is held.
"""

import argparse
import csv
import datetime
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

DONE, FAILED, USAGE, LOCKED = 0, 1, 2, 75
SETTINGS = ("DATABASE_HOST", "DATABASE_NAME", "DATABASE_USER", "DATABASE_PASSWORD", "DIRECTORY", "LOCK")
# Heading of the CSV → where django-oscar keeps it. An order whose address or lines were deleted is still an order.
COLUMNS = {
    "order": "o.number",
    "placed": "o.date_placed",
    "status": "o.status",
    "currency": "o.currency",
    "total": "o.total_incl_tax",
    "shipping": "o.shipping_incl_tax",
    "shipping_method": "o.shipping_method",
    "sku": "l.partner_sku",
    "title": "l.title",
    "quantity": "l.quantity",
    "price": "l.line_price_incl_tax",
    "last_name": "a.last_name",
    "first_name": "a.first_name",
    "postcode": "a.postcode",
    "state": "a.state",
    "city": "a.line4",
    "line1": "a.line1",
    "line2": "a.line2",
    "line3": "a.line3",
    "country": "a.country_id",
    "phone": "a.phone_number",
}
QUERY = (
    f"SELECT {', '.join(COLUMNS.values())} FROM order_order o"  # noqa: S608 - constants; what varies is handed over apart
    " LEFT JOIN order_line l ON l.order_id = o.id"
    " LEFT JOIN order_shippingaddress a ON a.id = o.shipping_address_id"
    " WHERE o.date_placed >= %s AND o.date_placed < %s ORDER BY o.date_placed, o.id, l.id"
)


class ExportError(Exception):
    """What keeps the export from being made, in words, with its exit status."""

    def __init__(self, words: str, status: int = FAILED) -> None:
        """Keep both."""
        super().__init__(words)
        self.status = status


def bounds(day: datetime.date, zone: datetime.tzinfo | None = None) -> tuple[datetime.datetime, datetime.datetime]:
    """Return when a day of the host's clock (or of a zone) begins and ends, as Django keeps it: UTC without a zone."""
    found = []
    for date in (day, day + datetime.timedelta(days=1)):
        midnight = datetime.datetime.combine(date, datetime.time())
        local = midnight.replace(tzinfo=zone) if zone else midnight.astimezone()
        found.append(local.astimezone(datetime.UTC).replace(tzinfo=None))
    return found[0], found[1]


def row(values: Sequence[Any], zone: datetime.tzinfo | None = None) -> list[str]:
    """Return a row of the database as text: times by the host's clock (or a zone), with offset; nothing for NULL."""
    return [
        value.replace(tzinfo=datetime.UTC).astimezone(zone).isoformat(timespec="seconds")
        if isinstance(value, datetime.datetime)
        else ""
        if value is None
        else str(value)
        for value in values
    ]


def write_whole(path: Path, rows: Iterable[Sequence[Any]]) -> int:
    """Write the file beside its place and move it there when all of it is on disk; return the number of rows."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with part.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(COLUMNS)
            for count, values in enumerate(rows, start=1):  # noqa: B007 - how many, for the log
                writer.writerow(row(values))
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too, outlives a power failure
    finally:
        os.close(folder)
    return count


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold the lock: a file that holds our PID. Raise when it stands already, whoever's it is."""
    try:
        handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        owner = lock.read_text(errors="replace").strip()[:20] or "nobody it names"
        raise ExportError(f"{lock} stands: another export runs, or one was cut off; held by {owner}", LOCKED) from None
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        yield
    finally:
        lock.unlink(missing_ok=True)


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings; raise with the names of those that are missing."""
    missing = [f"EXPORT_{name}" for name in SETTINGS if not environment.get(f"EXPORT_{name}")]
    if missing:
        raise ExportError(f"missing or empty in the environment: {', '.join(missing)}", USAGE)
    return {name: environment[f"EXPORT_{name}"] for name in SETTINGS}


def orders(given: Mapping[str, str], day: datetime.date) -> Iterator[Sequence[Any]]:
    """Yield the rows of a day as they come: a day of a large shop need not fit in memory."""
    import pymysql  # type: ignore[import-untyped,unused-ignore]  # Debian's; the tests of all else need none
    import pymysql.cursors

    try:
        with pymysql.connect(
            host=given["DATABASE_HOST"], user=given["DATABASE_USER"], password=given["DATABASE_PASSWORD"],
            database=given["DATABASE_NAME"], charset="utf8mb4", cursorclass=pymysql.cursors.SSCursor,
            connect_timeout=10, read_timeout=300,
        ) as connection, connection.cursor() as cursor:  # fmt: skip
            cursor.execute(QUERY, bounds(day))
            yield from cursor
    except pymysql.MySQLError as error:
        words = " ".join(str(item) for item in error.args)
        raise ExportError(f"the database at {given['DATABASE_HOST']} said no: {words}") from error


def stop(number: int, frame: object) -> NoReturn:
    """End as an error does, so that lock and half a file are taken away."""
    raise ExportError(f"told to stop by signal {number}", 128 + number)


def main(words: Sequence[str]) -> int:
    """Export one day; return the exit status."""
    parser = argparse.ArgumentParser(description="Export the orders of one day to a CSV file.")
    parser.add_argument("--day", type=datetime.date.fromisoformat, help="YYYY-MM-DD; yesterday when left out")
    day = parser.parse_args(words).day or datetime.date.today() - datetime.timedelta(days=1)
    signal.signal(signal.SIGTERM, stop)
    try:
        given = settings(os.environ)
        path = Path(given["DIRECTORY"], f"orders-{day}.csv")
        with held(Path(given["LOCK"])):
            count = write_whole(path, orders(given, day))
    except ExportError as error:
        print(f"export_orders: {error}; orders of {day} were not written", file=sys.stderr)
        return error.status
    except OSError as error:
        print(f"export_orders: {error}; orders of {day} were not written", file=sys.stderr)
        return FAILED
    print(f"export_orders: {path}: {count} rows")
    return DONE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
