"""Does the database of a copy open? Its own server is started on a layer that is thrown away, and asked."""

from collections.abc import Callable

from hikeshi.copies.record import Check, Copy
from hikeshi.errors import HikeshiError

OPEN_S = 180  # of which a crash recovery may take most
# Runs in the copy's own system, without network and powers. First as the server is set up there, for a setting may say
# how the files are laid out; then without any setting, for a broken one must not hide a database that is whole. Nobody
# logs in: the tables of logins may be what is broken. What is written is thrown away.
SCRIPT = r"""
tell() { "$client" --no-defaults --socket=/tmp/s --batch --skip-column-names --execute="$1" < /dev/null; }
server=$(command -v mariadbd || command -v mysqld || echo /usr/sbin/mariadbd)
client=$(command -v mariadb || command -v mysql || echo /usr/bin/mariadb)
[ -x "$server" ] && [ -x "$client" ] || { echo 'no mariadbd in the copy' >&2; exit 4; }
for settings in --defaults-file=/etc/mysql/my.cnf --no-defaults; do
    rm -f /tmp/s /tmp/log
    "$server" "$settings" --datadir="$DATA" --skip-networking --skip-grant-tables --skip-slave-start \
        --socket=/tmp/s --pid-file=/tmp/p --tmpdir=/tmp --log-error=/tmp/log --lc-messages=en_US \
        --event-scheduler=OFF --plugin-load= --innodb-buffer-pool-size=128M > /tmp/out 2>&1 &
    while kill -0 $! 2> /dev/null && ! tell 'SELECT 1' > /dev/null 2>&1; do sleep 0.2; done
    if kill -0 $! 2> /dev/null; then
        tell "SELECT COUNT(*), COALESCE(SUM(ENGINE IS NULL), 0), @@version FROM information_schema.TABLES
            WHERE TABLE_TYPE = 'BASE TABLE'" || exit 5
        kill $! && wait $!
        exit 0
    fi
    wait $!
done
tail -c 1500 /tmp/log /tmp/out 2> /dev/null | grep -v '^$' | tail -n 6 >&2
exit 3
"""

Run = Callable[[Copy, str, int], tuple[int, str]]  # a script in the copy's system: exit status, output with errors


def check_database(run: Run, copy: Copy, path: str) -> Check:
    """Return whether a data directory opens; of what its server says last only numbers are believed."""
    what = f"database {path}"
    try:
        status, told = run(copy, f"DATA={path}\n{SCRIPT}", OPEN_S)
    except HikeshiError as problem:
        return Check(what=what, ok=False, words=problem.message[:500])
    words = told.strip().rpartition("\n")[2].split()
    if status or len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
        why = told.strip()[-500:] or f"its server ended with status {status}"
        return Check(what=what, ok=False, words=f"does not open: {why}")
    broken = int(words[1])
    # A crashed table is what the original has, too: to be mended, and no reason to have no copy.
    return Check(
        what=what, ok=True, words=f"opens, {int(words[0])} tables" + f", of which {broken} do not" * (broken > 0)
    )
