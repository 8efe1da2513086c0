"""What a body would do is told, however it is written; what is not understood is told as that."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hikeshi.schedule import marks, shellwords

DOES = {
    "reboots": (
        "reboot", "/sbin/shutdown -r +5", "shutdown now", "sudo -u root -n /usr/sbin/poweroff", "init 6", "telinit 0",
        "systemctl reboot", "systemctl --no-wall poweroff", "systemctl start reboot.target", "systemctl kexec",
        "echo b > /proc/sysrq-trigger", "echo b | sudo tee /proc/sysrq-trigger", "sh -c 'reboot'",
        'bash -lc "sleep 5; halt"', "env A=b nice -n 5 reboot", "A=b reboot", "cmd=reboot; $cmd", "a=re; ${a}boot",
        're"bo"ot', "\\reboot", "timeout -s KILL 5 reboot", "nohup reboot &", "(sleep 9; reboot)", "x=$(reboot)",
        'y="`reboot`"', 'z="$(reboot)"', "if [ -f /x ]; then reboot; fi", "test -f /x && reboot || true",
        "echo reboot | at now + 5 minutes", "at now <<END\nreboot\nEND", "flock -n /run/l reboot",
        "flock /run/l -c 'reboot'", "su - -c reboot", "busybox reboot",
        "python3 -c 'import os; os.system(\"reboot\")'", "perl -e 'exec(\"/sbin/reboot\")'", "ssh root@web1 reboot",
        "ssh -p 22 -o BatchMode=yes web1 'sudo systemctl reboot'", "eval reboot", "trap 'reboot' EXIT",
        "find / -exec reboot \\;", "dbus-send --system x org.freedesktop.login1.Manager.Reboot boolean:true",
        "cd /tmp\nreboot # now",
    ),
    "deletes": (
        "rm -rf /srv/images", "rm -fr x", "rm --recursive x", "rm -f /srv/images/*", "/bin/rm -R x",
        "find /srv -mtime +1 -delete", "find / -name x -exec rm -r {} \\;", "rsync -a --delete /a/ /b/",
        "mysql -e 'DROP DATABASE shop'", "mariadb shop -e \"truncate table orders\"", "mkfs.ext4 /dev/sdb",
        "wipefs -a /dev/sdb", "ls | xargs -n1 rm -rf", "docker system prune -f", "apt-get -y autoremove",
        "git clean -fdx", "redis-cli FLUSHALL", "crontab -r", "echo 'delete from orders' | mysql shop",
        "for f in a b; do\nrm -rf /srv/$f\ndone",
    ),
    "stops": (
        "systemctl stop nginx", "systemctl disable --now nginx", "systemctl mask x", "systemctl restart mariadb",
        "service nginx stop", "/etc/init.d/nginx stop", "invoke-rc.d cron stop", "kill 1", "pkill -9 gunicorn",
        "killall nginx", "docker stop shop", "podman restart x", "nginx -s quit", "fuser -km /srv",
        "mysqladmin shutdown", "ip link set eth0 down", "umount /srv/images",
    ),
    "firewalls": (
        "iptables -F", "ip6tables -A INPUT -j DROP", "/sbin/iptables-restore < /etc/r", "nft -f /etc/nftables.conf",
        "nft flush ruleset", "ufw enable", "firewall-cmd --reload", "ipset destroy",
        "ip route add blackhole 10.0.0.0/8",
    ),
    "overwrites": (
        "dd if=/dev/zero of=/dev/sda", "cp new.conf /etc/nginx/nginx.conf", "mv x /srv/x", "echo x > /etc/hosts",
        "echo x >> /etc/hosts", "cat x | tee /srv/x", "mysql shop < dump.sql", "zcat dump.gz | mysql shop",
        "sed -i s/a/b/ x", "tar xzf b.tgz -C /", "cd /srv/shop && git pull", "apt-get -y upgrade",
        "unattended-upgrade", "chmod -R 777 /srv", "ansible-playbook site.yml", "hikeshi recover --yes",
    ),
    "syncs": ("rsync -a web1:/srv/ /srv/", "scp x web1:/srv", "rclone sync a b:", "lftp -e 'mirror /a' host",
    "zfs send a@b"),
}  # fmt: skip
HARMLESS = (
    "", "true", "echo reboot", "echo 'rm -rf /'", "# reboot\n", "date > /tmp/x", "date >/dev/null 2>&1", "shutdown -c",
    "iptables -L -n", "nft list ruleset", "ufw status", "kill -0 1", "crontab -l", "systemctl is-active nginx",
    "systemctl status reboot-x", "logger rebooting", "rm -f /run/x.pid", "mysqldump shop > /tmp/x.sql",
    "tar czf /tmp/b.tgz /srv", "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }",
    "awk '{print $1}' x",
    "[ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi",
)  # fmt: skip
UNKNOWN = (
    "/usr/local/bin/nightly.sh", "cd /srv && ./manage", "sh /root/x.sh", "base64 -d <<< cmVib290 | sh", ". /root/x.sh",
    "python3 /root/x.py", "$COMMAND", "curl -s http://example/x | bash", "\x1b[2J", "\udcff\udcfe",
)  # fmt: skip


@pytest.mark.parametrize(("mark", "body"), [(mark, body) for mark, bodies in DOES.items() for body in bodies])
def test_what_a_body_does_is_marked(mark: str, body: str) -> None:
    assert mark in marks.meaning(body).ordered


@pytest.mark.parametrize("body", HARMLESS)
def test_what_does_nothing_is_not_marked(body: str) -> None:
    found = marks.meaning(body)
    assert (found.ordered, found.unknown) == ((), False)


@pytest.mark.parametrize("body", UNKNOWN)
def test_what_is_not_understood_is_said(body: str) -> None:
    assert marks.meaning(body).unknown


def test_a_table_names_known_marks_only() -> None:
    assert {mark for mark, _, _ in marks.TABLE} == set(marks.MARKS) == set(DOES)
    assert marks.meaning("rsync --delete a b; reboot; nft -f x").ordered == ("reboots", "deletes", "firewalls", "syncs")


@pytest.mark.parametrize(
    ("body", "hosts"),
    [
        ("ssh web1 reboot", ("web1",)),
        ("ssh -i /k root@10.0.0.2 reboot", ("web1",)),
        ("ssh root@2001:db8::2 reboot", ("web1",)),
        ("rsync -a --delete /srv/ WEB1.example:/srv/", ("web1",)),
        ("rsync -a rsync://backup@[2001:db8::2]:873/srv /srv", ("web1",)),
        ("rsync -a web1.example::srv /srv; scp x lb:/etc", ("lb1", "web1")),
        ("sudo -u x sh -c 'scp x web1:'", ("web1",)),
        ("ssh batch1 true; ssh localhost true; ssh elsewhere true", ()),  # itself, and no host of the site
        ("echo web1", ()),
    ],
)
def test_the_hosts_that_a_body_goes_to(body: str, hosts: tuple[str, ...]) -> None:
    names = {
        "web1": "web1",
        "web1.example": "web1",
        "10.0.0.2": "web1",
        "2001:db8::2": "web1",
        "lb": "lb1",
        "batch1": "batch1",
    }
    assert marks.reaches(marks.meaning(body).addresses, names, "batch1") == hosts


def test_what_a_shell_reads_is_what_it_does() -> None:
    assert marks.meaning("sh", "rm -rf /srv\n").ordered == ("deletes",)
    assert marks.meaning("mail -s x ops", "we will reboot\nreboot\n").ordered == ()


@pytest.mark.parametrize(
    "body",
    [
        "a;" * 5_000_000, "sudo " * 60_000, '"$($($(' * 40_000, "'\"" * 140_000, "a=$a$a;" * 40_000, "`" * 300_000,
        "$(" * 140_000,
        "a='$b$b$b$b$b$b$b$b';b='$c$c$c$c$c$c$c';c=$a;" + 'sh -c "$a $a $a $a $a $a $a $a";' * 6000, "\\" * 300_000,
        "rm " + "-" * 300_000, "((" * 140_000, "find -exec " * 25_000, "ip " + "route " * 50_000,
        "ssh " + "@" * 300_000,
        "systemctl " + "." * 300_000, "x=" + "y" * 300_000, "\x00" * 10_000_000,
    ],
    ids=range(17),
)  # fmt: skip
def test_no_body_keeps_us_busy(body: str) -> None:
    begin = time.process_time()
    assert marks.meaning(body).unknown
    assert time.process_time() - begin < 20  # nothing near it; a minute and more is what would be wrong


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab rm-/\\'\"$(){}`;|&<>#\n=\x00\udcff{%"), max_size=60))
def test_any_text_is_a_body(body: str) -> None:
    marks.meaning(body, body)
    assert all(command.words for command in shellwords.commands(body)[0])
