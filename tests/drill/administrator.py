"""An administrator and three legitimate changes of his: an extra vhost, a tuned setting, a new user."""

from typing import Any

from tests.drill.conftest import ssh

HOST = "web1"
VHOST = "/etc/nginx/sites-enabled/intranet.conf"
TUNING = "/etc/mysql/mariadb.conf.d/90-tuning.cnf"
MAKE = f"""
printf '%s\\n' 'server {{' '    listen 80;' '    listen [::]:80;' '    server_name intranet.shop.example;' \
    '    default_type text/plain;' '    return 200 "the intranet of the shop";' '}}' > {VHOST}
nginx -t -q && systemctl reload nginx
printf '%s\\n' '[mariadbd]' 'sort_buffer_size = 4M' > {TUNING}
systemctl restart mariadb
useradd --create-home --shell /bin/bash kenji
"""
# Whatever state the site is in: an error of the test itself must not be hidden behind one of tidying up.
UNDO = f"""
rm -f {VHOST} {TUNING}
systemctl reload nginx || true
systemctl restart mariadb || true
userdel --remove kenji || true
"""
LOOK = f"""
stat --format='%n %F %a %U:%G %s %y' {VHOST} {TUNING}
sha256sum {VHOST} {TUNING}
getent passwd kenji
getent shadow kenji
id kenji
find /home/kenji -printf '%p %y %m %U:%G %s %T@\\n' | sort
"""
VHOST_SAYS = """
python3 -c '
import http.client
shop = http.client.HTTPConnection("127.0.0.1", 80, timeout=10)
shop.request("GET", "/", headers={"Host": "intranet.shop.example"})
print(shop.getresponse().read().decode())
'
"""


class Administrator:
    """Makes the changes at the beginning and takes them back at the end."""

    def __enter__(self) -> "Administrator":
        ssh(HOST, MAKE)
        self.before = ssh(HOST, LOOK)
        self.check_effect()
        return self

    def __exit__(self, *_: object) -> None:
        ssh(HOST, UNDO)

    def check_effect(self) -> None:
        """Ask the running system, and not its files, whether each change is in effect."""
        assert ssh(HOST, VHOST_SAYS).strip() == "the intranet of the shop"
        assert ssh(HOST, "mariadb -Ne 'SELECT @@GLOBAL.sort_buffer_size'").strip() == str(4 << 20)
        assert ssh(HOST, "runuser -u kenji -- id -un").strip() == "kenji"

    def finds_everything_as_it_was(self, kept: list[dict[str, Any]]) -> None:
        """Compare byte by byte, and look the changes up in what recovery reported."""
        assert ssh(HOST, LOOK) == self.before
        self.check_effect()
        named = {(item["host"], item["subject"]) for item in kept}
        assert named >= {(HOST, f"file:{VHOST}"), (HOST, f"file:{TUNING}"), (HOST, "user:kenji")}
