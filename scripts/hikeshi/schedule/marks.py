"""What the body of a job would do, as far as its words tell. Pure, and never certain.

A mark says what a command that stands there can do, not that it will: an `if` before it is not weighed. A body without
marks in which nothing is unknown consists of programs that are known to do none of this.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from hikeshi.schedule import shellwords
from hikeshi.schedule.shellwords import Command

MARKS = ("reboots", "deletes", "stops", "firewalls", "overwrites", "syncs")  # worst first
_KEPT = r"[\s:=](?:/etc|/srv|/usr|/boot|/opt|/root|/home|/var/(?:www|lib|spool|backups)|/dev/(?!null))\b"
_POWER = r"(?:reboot|poweroff|halt|kexec|soft-reboot|rescue|emergency|shutdown|suspend|hibernate|hybrid-sleep|sleep)"
_LOOK = r"(?:-L|-S|-V|-h|-nL|-vL|-nvL|--list\S*|--help|--version|list|status|show|-t|--test)"

# Mark, programs, and what their arguments must be like. Arguments stand in one line, each behind a space, those of a
# pipe behind " |"; the program `>` is a file that a shell writes, with the file for its argument.
TABLE: tuple[tuple[str, str, str], ...] = (
    ("reboots", r"reboot|poweroff|halt", r""),
    ("reboots", r"shutdown", r"^(?!.* (?:-c|--show|--help)\b)"),
    ("reboots", r"init|telinit", r"^(?: -\S+)* [06sS1]$"),
    ("reboots", r"systemctl|loginctl|busctl|dbus-send|gdbus",
     rf" {_POWER}(?:\.target)?(?: |$)|(?i:\.(?:reboot|poweroff|halt)\b)"),
    ("reboots", r"kexec", r" (?:-e|--exec)\b"),
    ("reboots", r">|tee|dd|cp", r"sysrq"),
    ("reboots", r"rtcwake|needrestart", r" -m | -r ?a"),
    ("reboots", r"sysctl", r"kernel\.(?:panic|sysrq)|sysrq"),
    ("deletes", r"rm", r" (?:-[a-zA-Z]*[rR]|--recursive)|\*|\$"),
    ("deletes", r"find", r" -delete\b"),
    ("deletes", r"rsync", r" --del|--remove-source"),
    ("deletes", r"shred|wipefs|blkdiscard|lvremove|vgremove|pvremove|dropdb|dropuser|userdel|deluser|groupdel|tmpwatch|"
                r"tmpreaper|crontab|atrm|cryptsetup|sgdisk|parted|fdisk|sfdisk|zpool|srm|wipe", r"^(?!.* -l\b)"),
    ("deletes", r"mkfs(?:\..*)?|mke2fs|mkswap|newfs", r""),
    ("deletes", r"mysql|mariadb|mysqladmin|mariadb-admin|psql|sqlite3|mongo|mongosh|redis-cli",
     r"(?i:\b(?:drop|truncate|delete\s+from|flushall|flushdb)\b)"),
    ("deletes", r"truncate", r""),
    ("deletes", r"git", r" (?:clean|gc|prune)\b"),
    ("deletes", r"docker|podman|nerdctl", r" (?:prune|rm|rmi)\b|\bprune\b"),
    ("deletes", r"apt|apt-get|aptitude|dpkg|snap|pip|pip3", r" (?:purge|remove|autoremove|uninstall|-r|-P|--purge)\b"),
    ("deletes", r"lvm|zfs|btrfs", r"remove|destroy|delete"),
    ("deletes", r"aws|gsutil|s3cmd|rclone|mc|lftp", r" (?:rm|del|delete|purge|deletefile|rb)\b|--delete"),
    ("deletes", r"journalctl", r" --vacuum"),
    ("stops", r"systemctl", r" (?:stop|disable|mask|kill|restart|try-restart|isolate|set-default|condrestart)\b"),
    ("stops", r"service|invoke-rc\.d|rc-service", r" (?:--full-)?(?:stop|restart|force-stop)\b"),
    ("stops", r"/etc/init\.d/.*", r" (?:stop|restart|force-stop)\b"),
    ("stops", r"update-rc\.d|chkconfig", r" (?:disable|remove|off)\b"),
    ("stops", r"kill|pkill|killall|killall5|skill|xkill", r"^(?!.* (?:-0|-l|-L)\b)"),
    ("stops", r"fuser", r" -\w*k"),
    ("stops", r"docker|podman|nerdctl|docker-compose|podman-compose", r" (?:stop|kill|rm|restart|down|pause)\b"),
    ("stops", r"supervisorctl|pm2|monit|sv|svc", r" (?:stop|restart|shutdown|delete|kill|unmonitor|down|-d)\b"),
    ("stops", r"nginx|apachectl|apache2ctl|apache2|haproxy|php-fpm.*", r" (?:stop|quit|graceful-stop|-s|-sf|-st)\b"),
    ("stops", r"mysqladmin|mariadb-admin|rabbitmqctl|pg_ctl|pg_ctlcluster|redis-cli", r"(?i:\b(?:shutdown|stop)\b)"),
    ("stops", r"ip|ifconfig|nmcli|netplan|brctl", r" (?:down|del|delete|flush|off|apply|disconnect)\b"),
    ("stops", r"ifdown|swapoff", r""),
    ("stops", r"umount|fsfreeze|virsh|lxc|machinectl", r"^(?! (?:list|status)\b)"),
    ("firewalls", r"(?:ip6?|eb|arp)tables(?:-legacy|-nft)?", rf"^(?!.* {_LOOK}(?:\s|$))"),
    ("firewalls", r"(?:ip6?|eb|arp)tables(?:-legacy|-nft)?-restore", r""),
    ("firewalls", r"nft|ufw|firewall-cmd|ipset|fail2ban-client|csf|shorewall6?|ferm|netfilter-persistent|cscli|tc",
     rf"^(?!.* {_LOOK}(?:\s|$))"),
    ("firewalls", r"ip", r" (?:route|rule)\b.* (?:add|del|delete|flush|replace|change)\b"),
    ("overwrites", r"dd", r" of=(?!/dev/(?:null|stdout)\b)"),
    ("overwrites", r">|tee|cp|mv|install|ln|patch|unzip|cpio|rename|sponge", rf"{_KEPT}"),
    ("overwrites", r"sed|perl|ruby", r" (?:-[a-zA-Z]*i|--in-place)"),
    ("overwrites", r"tar|bsdtar", r" (?:-?[a-zA-Z]*x[a-zA-Z]*|--extract|--get)(?: |$)"),
    ("overwrites", r"mysql|mariadb|psql|sqlite3|mongorestore|pg_restore|mysqlimport|mariadb-import|redis-cli",
     r"^ \||<|(?i:\b(?:update|insert|replace|alter|load)\s)|\.sql\b"),
    ("overwrites", r"pg_restore|mongorestore|mysqlimport|mariadb-import|restore|restic|borg|duplicity",
     r"^(?!.* (?:create|check|list|info|snapshots|backup)\b)"),
    ("overwrites", r"git|svn|hg", r" (?:pull|checkout|reset|merge|rebase|update|up|switch|restore)\b"),
    ("overwrites", r"apt|apt-get|aptitude|dpkg|unattended-upgrades?|snap|pip|pip3|npm|composer|gem",
     r"^$| (?:install|upgrade|dist-upgrade|full-upgrade|safe-upgrade|-i|update|refresh|ci|-v|-d)\b"),
    ("overwrites", r"apt\.systemd\.daily", r" install|^$"),
    ("overwrites", r"chmod|chown|chgrp|setfacl|chattr", r" (?:-[a-zA-Z]*R|--recursive)|" + _KEPT),
    ("overwrites", r"ansible|ansible-playbook|ansible-pull|puppet|chef-client|salt-call|cfengine|hikeshi", r""),
    ("overwrites", r"usermod|chpasswd|passwd|useradd|adduser|visudo|timedatectl|hwclock|hostnamectl", r" "),
    ("syncs", r"rsync|scp|sftp|lsyncd|unison|csync2|drbdadm|repmgr|syncthing|osync", r""),
    ("syncs", r"rclone|lftp|aws|gsutil|s3cmd|mc|wget", r" (?:sync|copy|move|mirror|mput|mget|cp|mv)\b|mirror"),
    ("syncs", r"zfs|btrfs", r" (?:send|receive|recv)\b"),
)  # fmt: skip

# Programs that do nothing of this unless the table says so: with those of the table, all that is known.
_HARMLESS = frozenset(
    """[ [[ : true false test echo printf cat head tail grep egrep fgrep zgrep sort uniq wc cut tr date sleep logger
    mail mailx sendmail cd pwd ls stat id whoami hostname uname uptime df du free ps pgrep top w who last mkdir touch
    basename dirname readlink realpath seq expr export set unset shift exit return break continue local declare typeset
    readonly umask ulimit trap wait read let getopts alias which type hash mktemp md5sum sha256sum sha1sum cksum diff
    cmp comm paste join gzip gunzip zcat bzip2 xz zstd openssl getent pidof lsof ss netstat ping ping6 dig host nslookup
    iptables-save ip6tables-save mysqldump mariadb-dump mariabackup pg_dump pg_dumpall run-parts logrotate systemd-cat
    lsblk blkid findmnt mountpoint lscpu lsmod nproc arch sync tty stty clear sar sa1 sa2 debian-sa1 vmstat iostat
    mpstat updatedb updatedb.mlocate mandb e2scrub_all fstrim apt-key apt-listchanges popularity-contest sessionclean
    dpkg-query apt-cache anacron > savelog dotlockfile lockfile-create lockfile-remove lockfile-touch nl tac rev fold
    fmt column jq""".split()  # noqa: SIM905 (words are read more easily than strings)
)
_INTERPRETERS = re.compile(r"(?:python|perl|ruby|php|node|nodejs|lua|tclsh|expect)[\d.]*|[gmn]?awk|osascript|pwsh")
_FEEDS = frozenset({"echo", "printf", "cat", "base64", "yes"})
_REACHING = re.compile(
    r"ssh|slogin|scp|sftp|rsync|autossh|mosh|rsh|rcp|pssh|pdsh|clush|parallel-ssh|sshpass|lsyncd|unison"
)
_CODE = re.compile(r"[\"'()\[\],;]+")
_COMPILED = tuple((mark, re.compile(programs), re.compile(args)) for mark, programs, args in TABLE)
_READS_COMMANDS = re.compile(r"(?:ba|da|a|z|k)?sh|at|batch|mysql|mariadb|psql|ssh|su|python[\d.]*|perl|php|ruby")
_ADDRESS = re.compile(r"(?:[a-z]+://)?(?:[^@/\s]*@)?(?:\[([0-9A-Fa-f:.]+)(?:%\w+)?\]|([^:/\s]+))(?:[:/].*)?", re.DOTALL)


Rule = tuple[str, re.Pattern[str]]


@dataclass
class Meaning:
    """What a body comes to: its marks, which hosts it goes to, and whether some of it is not known."""

    marks: set[str] = field(default_factory=set)
    addresses: list[str] = field(default_factory=list)
    unknown: bool = False

    @property
    def ordered(self) -> tuple[str, ...]:
        """The marks, worst first."""
        return tuple(mark for mark in MARKS if mark in self.marks)


def meaning(body: str, stdin: str = "") -> Meaning:
    """Return what a shell that is given these words would do; `stdin` is what its commands may read. Never raises."""
    found = Meaning()
    commands, whole = shellwords.commands(body)
    found.unknown = not whole
    for command in commands:
        _weigh(command, found)
    if readers := [command for command in commands if _READS_COMMANDS.fullmatch(command.name)]:
        fed = [" ".join(command.words[1:]) for command in commands if command.name in _FEEDS]
        for command in readers:  # a database does what it reads, too
            _mark(_rules(command.name), replace(command, words=(*command.words, *fed, stdin)), found)
        inner, whole = shellwords.commands("\n".join([*fed, stdin]))
        found.unknown = found.unknown or not whole
        for command in inner:
            _weigh(command, found)
    return found


def worst(marks: Sequence[str]) -> int:
    """Return how bad the worst of some marks is, 0 being the worst of all."""
    return min((MARKS.index(mark) for mark in marks if mark in MARKS), default=len(MARKS))


def reaches(addresses: Sequence[str], names: dict[str, str], own: str) -> tuple[str, ...]:
    """Return which other hosts some addresses are: `names` says of every name and address of the site whose it is."""
    hosts = (names.get(address.lower(), "") for address in addresses)
    return tuple(sorted({host for host in hosts if host and host != own}))


def _weigh(command: Command, found: Meaning) -> None:
    rules = _rules(command.path) if command.path.startswith("/etc/") else _rules(command.name)
    _mark(rules, command, found)
    found.unknown = found.unknown or command.too_long
    if _REACHING.fullmatch(command.name):
        found.addresses += _addresses(command.words[1:])
    elif _INTERPRETERS.fullmatch(command.name):
        # Not read as what it is: only what it may hand to a shell is looked for, and its other words mean nothing.
        for inner in shellwords.commands(_CODE.sub("\n", " ".join(command.words[1:])))[0]:
            _mark(_rules(inner.name), inner, found)
        found.unknown = found.unknown or not command.name.endswith("awk")
    elif not rules and command.name not in _HARMLESS and command.name not in shellwords.KNOWN:
        found.unknown = True


def _mark(rules: tuple[Rule, ...], command: Command, found: Meaning) -> None:
    found.marks.update(mark for mark, wanted in rules if wanted.search(command.arguments))


@lru_cache(maxsize=4096)
def _rules(program: str) -> tuple[Rule, ...]:
    """Return what the table says of a program."""
    return tuple((mark, wanted) for mark, programs, wanted in _COMPILED if programs.fullmatch(program))


def _addresses(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if (found := _ADDRESS.fullmatch(word[:300])) is not None:
            yield found[1] or found[2]
        elif ":" in word:  # an address of IPv6 as ssh takes it, without brackets
            yield word.rpartition("@")[2]
        if word.count(":") > 1:
            yield word.rpartition("@")[2]
