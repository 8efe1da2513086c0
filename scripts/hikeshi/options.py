"""Options that several verbs share."""

from typing import Annotated

import typer

SiteOption = Annotated[
    str | None, typer.Option("--site", help="Which site; else HIKESHI_SITE, else the only one.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]
