"""docs/faults.md is what `hikeshi drill table` writes, of the faults that there are."""

import os

import pytest

from hikeshi.drill import faults, table

TEXT = table.DOCUMENT.read_text(encoding="utf-8") if table.DOCUMENT.exists() else ""
ROWS = {row.fault: row for row in table.read(TEXT)}
CATALOGUE = faults.catalogue()
# What rewrites heads, titles and names, and keeps what was measured; new faults are “not measured”.
ANEW = 'python -c "from hikeshi.drill import table as t; t.write(t.current(t.DOCUMENT), t.DOCUMENT)"'


def test_document_is_as_the_command_writes_it() -> None:
    assert table.render(table.rows(TEXT)) == TEXT, f"docs/faults.md is not up to date: {ANEW}"


@pytest.mark.parametrize("name", CATALOGUE)
def test_fault_has_its_row(name: str) -> None:
    assert name in ROWS, f"docs/faults.md has no row for {name}: hikeshi drill table {name}, or without a site: {ANEW}"
    row, data = ROWS[name], CATALOGUE[name]
    assert (row.title, row.row) == (data.title, data.row or table.NONE), f"docs/faults.md, {name}: {ANEW}"
    assert row.found != table.NO, f"docs/faults.md, {name}: triage did not see it"
    assert row.mended != table.NO or not data.mendable, (
        f"docs/faults.md, {name}: it was not mended; of what nothing can mend, faults.yml says `mendable: false`"
    )


def test_no_row_is_left_of_a_fault_that_is_gone() -> None:
    gone = sorted(ROWS.keys() - CATALOGUE.keys())
    assert not gone, f"docs/faults.md: {gone} is no fault of faults.yml: {ANEW}"


@pytest.mark.skipif(not os.environ.get("HIKESHI_TEST_ALL"), reason="asked by scripts/test --all")
def test_every_fault_was_measured() -> None:
    open_still = [name for name, row in ROWS.items() if table.NOT_MEASURED in (row.found, row.named, row.mended)]
    assert not open_still, f"docs/faults.md: not measured yet: hikeshi drill table {' '.join(open_still)}"
