"""How many webhooks are sent at a time, to whom, and how long their receivers have to answer. Does no I/O.

Receivers are counted by the address that is connected to: names, ports and logins in a URL cost nothing to vary.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from upres.worker.fetch import TOTAL_SECONDS

PER_OWNER = 4
PER_ADDRESS = 16
"""Maximum number of webhooks that are sent at a time for one owner, and to one address, which owners may share."""
IPV6_PREFIX = 64
"""Addresses of IPv6 with the same first bits count as one, because that is the smallest network that anybody gets."""
SHORT_SECONDS = 3.0
"""Time limit in seconds for a receiver that did not answer in time before; TOTAL_SECONDS for all others."""
PATIENT_ATTEMPT = 3
"""From this attempt on every receiver has TOTAL_SECONDS: some always need them, and later attempts are rare."""
RETRY_SECONDS = 0.5
MAX_TURN_SECONDS = 60.0
"""Shortest and longest time in seconds after which a webhook above a limit is due again."""
MAX_REMEMBERED = 10_000
"""Number of owners and addresses that are remembered; the others count as new."""


class Busy(Exception):
    """A limit is reached; the webhook's turn is expected in `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass
class _Subject:
    """An owner or an address: how many webhooks are being sent, and what was seen before."""

    limit: int
    sending: int = 0
    seconds: float = 0.1
    """Duration of a request, as a moving average."""
    turn: float = 0.0
    """Time (of time.monotonic) at which the next webhook above the limit is expected to have its turn."""
    slow: bool = False
    """Whether the last request was not answered in time."""

    def enter(self, now: float) -> None:
        """Count a request. Raises Busy above the limit; one webhook after the other gets a later turn."""
        if self.sending < self.limit:
            self.sending += 1
            return
        turn = min(max(self.turn, now + RETRY_SECONDS), now + MAX_TURN_SECONDS)
        self.turn = turn + self.seconds / self.limit
        raise Busy(turn - now)

    def leave(self, took: float, slow: bool) -> None:
        """Count the end of a request."""
        self.sending -= 1
        self.seconds, self.slow = (self.seconds + took) / 2, slow


class Limits:
    """Counts all webhooks that this process is sending. Safe from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subjects: OrderedDict[str, _Subject] = OrderedDict()

    @contextmanager
    def send(self, owner: str, attempt: int) -> Iterator["Sending"]:
        """Count a webhook of an owner ("" for none) during the block. Raises Busy."""
        sending = Sending(self, attempt)
        if owner:
            sending.enter(f"owner {owner}", PER_OWNER)
        try:
            yield sending
        finally:
            sending.leave()

    def enter(self, name: str, limit: int) -> bool:
        """Count a request for an owner or address; return whether its last one was slow. Raises Busy."""
        with self._lock:
            subject = self._subjects.setdefault(name, _Subject(limit))
            self._subjects.move_to_end(name)
            subject.enter(time.monotonic())
            self._forget()
            return subject.slow

    def leave(self, name: str, took: float, slow: bool) -> None:
        """Count the end of a request."""
        with self._lock:
            self._subjects[name].leave(took, slow)

    def _forget(self) -> None:
        """If there are too many, forget the one that was used least recently, and to whom nothing is being sent."""
        if len(self._subjects) > MAX_REMEMBERED:
            del self._subjects[next(name for name, one in self._subjects.items() if not one.sending)]


class Sending:
    """One webhook that is being sent. Set `answered` when the receiver has answered."""

    def __init__(self, limits: Limits, attempt: int) -> None:
        self.answered = False
        self._limits, self._attempt = limits, attempt
        self._entered: dict[str, float] = {}

    def admit(self, address: str) -> float:
        """Count the request for the address that it connects to, instead of the last one, if any.

        Returns the seconds that the receiver has to answer. Raises Busy.
        """
        for name in [name for name in self._entered if name.startswith("address")]:
            self._leave(name)
        slow = self.enter(f"address {_network(address)}", PER_ADDRESS)
        return SHORT_SECONDS if slow and self._attempt < PATIENT_ATTEMPT else TOTAL_SECONDS

    def enter(self, name: str, limit: int) -> bool:
        """Count the request for an owner or address; return whether its last one was slow. Raises Busy."""
        slow = self._limits.enter(name, limit)
        self._entered[name] = time.monotonic()
        return slow

    def leave(self) -> None:
        """Count the end of the request."""
        for name in list(self._entered):
            self._leave(name)

    def _leave(self, name: str) -> None:
        took = time.monotonic() - self._entered.pop(name)
        self._limits.leave(name, took, not self.answered and took >= SHORT_SECONDS - 0.5)


def _network(address: str) -> str:
    """Return the address, or for IPv6 its network."""
    if ip_address(address).version == 4:
        return address
    return str(ip_network(f"{address}/{IPV6_PREFIX}", strict=False))
