"""What the load balancer asks: can this shop serve a customer, which it cannot without its database?"""

from collections.abc import Callable

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse

PATH = "/lb-health"


class LoadBalancerHealth:
    """Answer the health check before sessions, the Host header or anything else can get in its way."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info != PATH:
            return self.get_response(request)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                cursor.fetchone()
        except (Error, OSError):
            # No detail: the answer leaves the host. Ordinary pages write the error to the journal.
            return self._answer("database unavailable", 503)
        return self._answer("ok", 200)

    @staticmethod
    def _answer(text: str, status: int) -> HttpResponse:
        return HttpResponse(f"{text}\n", "text/plain", status, headers={"Cache-Control": "no-store"})
