"""The app that makes the shop a practice shop: health check and seed."""

from django.apps import AppConfig


class PracticeConfig(AppConfig):
    name = "practice"
