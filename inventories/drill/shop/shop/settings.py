"""Settings of the practice shop. Every secret and every address comes from the environment."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from oscar.defaults import *  # noqa: F403 - oscar's own way of giving its defaults


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ImproperlyConfigured(f"the variable {name} is missing or empty in the shop's environment file")
    return value


BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = _required("SHOP_SECRET_KEY")
ALLOWED_HOSTS = [host for host in _required("SHOP_ALLOWED_HOSTS").split(",") if host]
DEBUG = False
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
SITE_ID = 1
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.mysql",
        "NAME": _required("SHOP_DATABASE_NAME"),
        "USER": _required("SHOP_DATABASE_USER"),
        "PASSWORD": _required("SHOP_DATABASE_PASSWORD"),
        # A connection attempt that hangs must become an error page before gunicorn kills the worker.
        "OPTIONS": {"unix_socket": _required("SHOP_DATABASE_SOCKET"), "charset": "utf8mb4", "connect_timeout": 5},
        "ATOMIC_REQUESTS": True,
    }
}

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.sites",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.flatpages",
    "oscar.config.Shop",
    "oscar.apps.analytics.apps.AnalyticsConfig",
    "checkout.apps.CheckoutConfig",
    "oscar.apps.address.apps.AddressConfig",
    "oscar.apps.shipping.apps.ShippingConfig",
    "oscar.apps.catalogue.apps.CatalogueConfig",
    "oscar.apps.catalogue.reviews.apps.CatalogueReviewsConfig",
    "oscar.apps.communication.apps.CommunicationConfig",
    "oscar.apps.partner.apps.PartnerConfig",
    "oscar.apps.basket.apps.BasketConfig",
    "oscar.apps.payment.apps.PaymentConfig",
    "oscar.apps.offer.apps.OfferConfig",
    "oscar.apps.order.apps.OrderConfig",
    "oscar.apps.customer.apps.CustomerConfig",
    "oscar.apps.search.apps.SearchConfig",
    "oscar.apps.voucher.apps.VoucherConfig",
    "oscar.apps.wishlists.apps.WishlistsConfig",
    "oscar.apps.dashboard.apps.DashboardConfig",
    "oscar.apps.dashboard.reports.apps.ReportsDashboardConfig",
    "oscar.apps.dashboard.users.apps.UsersDashboardConfig",
    "oscar.apps.dashboard.orders.apps.OrdersDashboardConfig",
    "oscar.apps.dashboard.catalogue.apps.CatalogueDashboardConfig",
    "oscar.apps.dashboard.offers.apps.OffersDashboardConfig",
    "oscar.apps.dashboard.partners.apps.PartnersDashboardConfig",
    "oscar.apps.dashboard.pages.apps.PagesDashboardConfig",
    "oscar.apps.dashboard.ranges.apps.RangesDashboardConfig",
    "oscar.apps.dashboard.reviews.apps.ReviewsDashboardConfig",
    "oscar.apps.dashboard.vouchers.apps.VouchersDashboardConfig",
    "oscar.apps.dashboard.communications.apps.CommunicationsDashboardConfig",
    "oscar.apps.dashboard.shipping.apps.ShippingDashboardConfig",
    "widget_tweaks",
    "haystack",
    "treebeard",
    "sorl.thumbnail",
    "django_tables2",
    "practice",
]

MIDDLEWARE = [
    # First: a load balancer's check carries no session and any Host header.
    "practice.health.LoadBalancerHealth",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware",
    "django.middleware.common.CommonMiddleware",
    "oscar.apps.basket.middleware.BasketMiddleware",
]

AUTHENTICATION_BACKENDS = [
    "oscar.apps.customer.auth_backends.EmailBackend",
    "django.contrib.auth.backends.ModelBackend",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.debug",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "oscar.apps.search.context_processors.search_form",
                "oscar.apps.checkout.context_processors.checkout",
                "oscar.apps.communication.notifications.context_processors.notifications",
                "oscar.core.context_processors.metadata",
            ],
        },
    }
]

# Each gunicorn worker would have a memory cache of its own: thumbnails cleared by one process would live on in the
# others and show as broken pictures until a restart. The database is asked instead.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

# The simple search engine of haystack shows an empty catalogue; Whoosh works from files.
HAYSTACK_CONNECTIONS = {
    "default": {"ENGINE": "haystack.backends.whoosh_backend.WhooshEngine", "PATH": _required("SHOP_SEARCH_INDEX")}
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("ja", "日本語")]
TIME_ZONE = "Asia/Tokyo"
USE_TZ = True

MEDIA_URL = "/media/"
MEDIA_ROOT = _required("SHOP_MEDIA_ROOT")
STATIC_URL = "/static/"
STATIC_ROOT = _required("SHOP_STATIC_ROOT")
# nginx reads what the shop writes, whatever umask the process was started with.
FILE_UPLOAD_PERMISSIONS = 0o644
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o755

# A refused SMTP connection would break the order page although order and charge exist; there is no mail host yet.
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"

SHOP_PAYMENT_URL = _required("SHOP_PAYMENT_URL")
SHOP_PAYMENT_KEY = _required("SHOP_PAYMENT_KEY")

OSCAR_SHOP_NAME = "Hikari Lanterns"
OSCAR_SHOP_TAGLINE = "提灯と行灯の店"
OSCAR_DEFAULT_CURRENCY = "JPY"
OSCAR_ALLOW_ANON_CHECKOUT = True
# The whole catalogue on one page, so that one request shows whether every picture is there.
OSCAR_PRODUCTS_PER_PAGE = 48
OSCAR_IMAGE_FOLDER = "images/products/"
OSCAR_EAGER_ALERTS = False
# Oscar's own price ranges are for pounds, and Whoosh cannot count them.
OSCAR_SEARCH_FACETS = {"fields": {"product_class": {"name": "Type", "field": "product_class"}}, "queries": {}}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    # Standard error is the journal. Without this Django mails errors to administrators, and nobody sees them.
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {"django": {"handlers": [], "level": "WARNING", "propagate": True}},
}
