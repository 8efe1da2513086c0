"""The words of `hikeshi copy` and `hikeshi rescue`: parses, calls, maps to an exit status. No logic."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from hikeshi import lock, screen
from hikeshi.copies import making, page, record, replay, rescue, swap
from hikeshi.copies.making import Outcome
from hikeshi.errors import ExitStatus, RefusedError, UsageError
from hikeshi.incident import show
from hikeshi.options import JsonOption, SiteOption
from hikeshi.site import Site, load

Agreed = Callable[..., bool]


def add_to(app: typer.Typer, agreed: Agreed) -> None:
    """Add the command; `agreed` asks the operator."""

    @app.command("copy")
    def copy_instances(
        host: Annotated[
            str, typer.Argument(metavar="[HOST]", help="Copy this one; all that the site names when left out.")
        ] = "",
        listing: Annotated[bool, typer.Option("--list", help="The copies there are; make none.")] = False,
        again: Annotated[bool, typer.Option("--again", help="Another one, although a verified one is there.")] = False,
        done: Annotated[
            str,
            typer.Option("--done", metavar="WORDS", help="What was asked for by hand is done; in words."),
        ] = "",
        verify: Annotated[str, typer.Option("--verify", metavar="ID", help="Read this copy once more.")] = "",
        delete: Annotated[str, typer.Option("--delete", metavar="ID", help="Remove this copy.")] = "",
        delete_expired: Annotated[bool, typer.Option("--delete-expired", help="Remove those that expired.")] = False,
        swap_back: Annotated[bool, typer.Option("--swap-back", help="Let HOST run from its original again.")] = False,
        swap_commit: Annotated[
            bool, typer.Option("--swap-commit", help="Let HOST keep its mended disk; the original and the copy go.")
        ] = False,
        site: SiteOption = None,
        check: Annotated[bool, typer.Option("--check", help="Show what would change; change nothing.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Answer the operator's questions with yes.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Copy instances with their data, and verify the copies; they expire. Before anything is mended."""
        other = [name for name, given in (("--list", listing), ("--verify", verify), ("--delete", delete),
                 ("--delete-expired", delete_expired), ("--swap-back", swap_back),
                 ("--swap-commit", swap_commit)) if given]  # fmt: skip
        ends_swap = swap_back or swap_commit
        if len(other) > 1 or (other and (again or done or (check and not ends_swap))):
            raise UsageError(f"{other[0]} goes with nothing else that copies or removes.", "hikeshi copy --help")
        chosen = load(site)
        show.heading(chosen)
        if verify:
            _verify(chosen, verify, as_json=as_json)
            return
        if ends_swap:
            _end_swap(chosen, host, agreed, back=swap_back, yes=yes, check=check)

        def approve(told: Sequence[str], question: str) -> bool:
            for words in told:
                screen.say(f"  {screen.line(words, 300)}")
            return agreed(question, "hikeshi copy --yes", yes=yes)

        if delete:
            outcome = making.delete(chosen, delete)
        elif delete_expired:
            outcome = making.delete_expired(chosen)
        elif listing or ends_swap:
            outcome = making.listing(chosen, host)
        else:
            outcome = making.take(chosen, host, approve=approve, again=again, done=done, check=check)
        _print(chosen, outcome, as_json=as_json)


def add_rescue_to(app: typer.Typer, agreed: Agreed) -> None:
    """Add the command; `agreed` asks the operator."""

    @app.command("rescue")
    def rescue_host(
        host: Annotated[str, typer.Argument(metavar="HOST", help="The host that lets nobody in.")],
        again: Annotated[
            bool, typer.Option("--again", help="Copy it anew, although a verified copy is there.")
        ] = False,
        replayed: Annotated[
            bool, typer.Option("--replay", help="Take the steps that passed on the copy on HOST itself; no swap.")
        ] = False,
        site: SiteOption = None,
        plan: Annotated[
            bool, typer.Option("--plan", help="As --check, and judge the disk of a copy that is there.")
        ] = False,
        check: Annotated[bool, typer.Option("--check", help="Show what would be done; change nothing.")] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Answer the operator's questions with yes.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Mend a host by way of its disk: copy it, mend and rehearse the copy, swap it in, prove it, or swap back."""
        if replayed and (again or plan):
            raise UsageError("--replay goes with neither --again nor --plan.", "hikeshi rescue --help")
        chosen = load(site)
        show.heading(chosen)

        def ask(told: Sequence[str], question: str) -> bool:
            for words in told:
                screen.say(f"  {screen.line(words, 300)}")
            return agreed(question, f"hikeshi rescue {host} --yes", yes=yes)

        if replayed:
            again_there = replay.replay(chosen, host, ask=ask, check=check)
            if as_json:
                screen.print_json(again_there.as_data())
            else:
                page.replayed(again_there, check=check)
            if again_there.failed or again_there.left:
                raise typer.Exit(ExitStatus.FAILED)
            return
        done = rescue.rescue(chosen, host, ask=ask, again=again, check=check, plan=plan)
        if as_json:
            screen.print_json(done.as_data())
        else:
            page.rescued(done)


def _print(site: Site, outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        screen.print_json(outcome.as_data())
        return
    for copy in outcome.copies:
        if copy.id in outcome.made:
            page.checks(copy, copy.checks)
    page.show(site, outcome)


def _verify(site: Site, ident: str, *, as_json: bool) -> None:
    copy, seen = making.verify_again(site, ident)
    if as_json:
        screen.print_json({"id": copy.id, "checks": [check.model_dump() for check in seen]})
    else:
        page.checks(copy, seen)
    if not all(check.ok for check in seen):
        raise typer.Exit(ExitStatus.FAILED)


def _end_swap(site: Site, host: str, agreed: Agreed, *, back: bool, yes: bool, check: bool) -> None:
    option = f"--swap-{'back' if back else 'commit'}"
    swapped = sorted(copy.host for copy in record.read_all(site) if copy.swapped)
    if not host:
        raise UsageError(f"{option} needs a host; allowed: {', '.join(swapped) or 'none runs from a mended disk'}.",
                         f"hikeshi copy HOST {option}")  # fmt: skip
    with lock.held(site, "copy"):
        found = [copy for copy in record.read_all(site, host) if copy.swapped]
        if not found:
            raise UsageError(f"{host} runs from no copy.", "hikeshi copy --list")
        if back:
            would = f"{host} is stopped and started from its original disk."
        else:
            would = f"The original of {host} is removed, and copy {found[0].id}; nothing brings them back."
        if check:
            screen.say(f"{screen.line(would)} Nothing was changed (--check)")
            for why in swap.keeps_from_back(site, found[0]) if back else ():
                screen.say(f"refused it would be: {screen.line(why, 300)}")
            return
        again = f"hikeshi copy {host} {option} --yes"
        if not agreed(f"{would} {'Swap back?' if back else 'Commit?'}", again, yes=yes):
            raise RefusedError("nothing was changed: that was not approved.", again)
        if back:
            swap.may_go_back(site, found[0])
            swap.swap_back(site, found[0])
        else:
            swap.commit(site, found[0])
        said = "runs from its original disk again" if back else "keeps its mended disk; original and copy are gone"
        screen.say(f"{screen.line(host)} {said}")
