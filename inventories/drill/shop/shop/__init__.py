"""The practice shop: django-oscar on MariaDB, as a small shop would run it."""

import pymysql

# PyMySQL stands in for mysqlclient: pure Python, so that the web host needs no compiler.
pymysql.install_as_MySQLdb()
