"""The small instance of copy_site with systemd, sshd, a page and a timer: something to be rescued and rehearsed."""

import subprocess
from pathlib import Path

import yaml

from hikeshi.drill import engine
from tests.drill import copy_site
from tests.drill.copy_site import INSTANCE, NET, inside

ADDRESS = f"{NET}.11"
PAGE = "from a disk of its own"


def make(root: Path, **copy: object) -> None:
    """Make the instance and its site; it lets us in, and shows its page."""
    engine.prepare(print)
    copy_site.sweep()
    copy_site.write_site(root, carried={"web1": ["/var/lib/shop"]}, **copy)
    folder = root / "inventories" / "shop"
    for name in ("ssh_key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "known_hosts").write_text(f"web1 {(folder / 'host_key.pub').read_text()}")
    (folder / "ssh_config").write_text(
        f"Host web1\n  HostName {ADDRESS}\n  HostKeyAlias web1\n  User deploy\n  IdentitiesOnly yes\n"
    )
    (folder / "hosts.yml").write_text(f"all: {{hosts: {{web1: {{ansible_host: {ADDRESS}}}}}}}\n")
    data = yaml.safe_load((folder / "site.yml").read_text())
    data["views"] = dict.fromkeys(("customer", "direct"), {"url": f"http://{ADDRESS}", "host": "shop.example"})
    (folder / "site.yml").write_text(yaml.safe_dump(data))
    probe = {"id": "top", "title": "The page opens", "steps": [{"get": "/page", "expect": {"contains": [PAGE]}}]}
    (folder / "probes.yml").write_text(yaml.safe_dump({"probes": [probe]}))
    copy_site.make_instance(engine.base_image(), "--systemd=always", "--cap-add", "SYS_ADMIN", command=("/sbin/init",))
    public, private = (folder / "ssh_key.pub").read_text().strip(), (folder / "host_key").read_text().strip()
    inside(f"""
        timeout 30 sh -c 'until systemctl is-system-running 2>/dev/null | grep -qE "running|degr"; do sleep 0.2; done'
        install -d -o deploy -g deploy -m 0700 /home/deploy/.ssh
        echo '{public}' > /home/deploy/.ssh/authorized_keys; chown deploy: /home/deploy/.ssh/authorized_keys
        rm -f /etc/ssh/ssh_host_*; umask 077; echo '{private}' > /etc/ssh/ssh_host_ed25519_key; umask 022
        ssh-keygen -y -f /etc/ssh/ssh_host_ed25519_key > /etc/ssh/ssh_host_ed25519_key.pub
        echo 0123456789abcdef0123456789abcdef > /etc/machine-id; echo '127.0.1.1 web1' >> /etc/hosts
        echo '{PAGE}' > /mnt/images-disk/page; chown www-data:games /mnt/images-disk; chmod 2751 /mnt/images-disk
        mkdir -p /var/lib/shop; echo one > /var/lib/shop/orders
        cat > /etc/systemd/system/shop.service <<'UNIT'
[Service]
WorkingDirectory=/mnt/images-disk
ExecStart=/usr/bin/python3 -m http.server 80
[Install]
WantedBy=multi-user.target
UNIT
        cat > /etc/systemd/system/nightly.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /etc/machine-id >> /mnt/images-disk/ran'
UNIT
        cat > /etc/systemd/system/nightly.timer <<'UNIT'
[Timer]
OnActiveSec=1
OnUnitActiveSec=1
AccuracySec=1us
[Install]
WantedBy=timers.target
UNIT
        systemctl daemon-reload; systemctl enable --now shop.service nightly.timer ssh.service
        systemctl restart ssh.service; timeout 10 sh -c 'until [ -s /mnt/images-disk/ran ]; do sleep 0.2; done'
    """)


def page() -> str:
    """Return what a customer sees now."""
    words = ["curl", "-sS", "--max-time", "5", f"http://{ADDRESS}/page"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


__all__ = ["ADDRESS", "INSTANCE", "PAGE", "make", "page"]
