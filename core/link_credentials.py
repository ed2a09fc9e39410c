"""How long a presigned URL works: it dies with the credentials that signed it, when these are a role's or temporary."""

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boto3.session import Session

RENEW_SECONDS = 60.0
"""Pause between two attempts to renew credentials that last shorter than a link: some sources, such as the metadata
service of an EC2 instance, hand out the same ones until shortly before their end."""


class LinkCredentials:
    """The credentials of a session, renewed early enough for links. Instances may be shared by threads."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._lock = threading.Lock()
        self._renew_at = 0.0

    def lasting(self, seconds: int) -> int:
        """Return for how many of `seconds` a link works that is signed now, after renewing credentials that end before.

        Credentials of which nobody knows when they end (keys of a user, or the variables that Lambda sets) last long
        enough. 0 when they have ended and were not renewed. Raises botocore's errors.
        """
        from botocore.credentials import RefreshableCredentials

        given = self._session.get_credentials()
        if not isinstance(given, RefreshableCredentials):
            return seconds
        credentials: Any = given  # the stubs lack what is used of it
        try:
            credentials.get_frozen_credentials()  # of an assumed role there are none before the first call
            if credentials.refresh_needed(seconds) and self._is_time():
                _renew(credentials, seconds)
        except RuntimeError:  # botocore: those that it was given had ended
            return 0
        if not credentials.refresh_needed(seconds):
            return seconds
        return max(0, int(credentials._seconds_remaining()))

    def _is_time(self) -> bool:
        """Whether this thread may renew them now."""
        with self._lock:
            now = time.monotonic()
            if now < self._renew_at:
                return False
            self._renew_at = now + RENEW_SECONDS
            return True


def _renew(credentials: Any, seconds: int) -> None:
    """Let botocore renew credentials that last shorter than this; by itself it does so 15 minutes before their end."""
    usual = credentials._advisory_refresh_timeout
    credentials._advisory_refresh_timeout = seconds
    try:
        credentials.get_frozen_credentials()
    finally:
        credentials._advisory_refresh_timeout = usual
