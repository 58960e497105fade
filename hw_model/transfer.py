"""Moving KV over a link: time and queueing."""

from __future__ import annotations

from hw_model.errors import ConfigError


class TransferLink:
    """A link that carries one transfer after the other, in the order in which they are booked.

    Args:
        bytes_per_s: As reached, one direction, > 0.
        latency_s: Of each transfer, before its first byte, >= 0.

    Invariant: bookings come at non-decreasing times.
    """

    __slots__ = ("_bytes_per_s", "_latency_s", "free_at_s", "num_bytes")

    def __init__(self, bytes_per_s: float, latency_s: float = 0.0) -> None:
        if bytes_per_s <= 0 or latency_s < 0:
            raise ConfigError(
                f"a link of {bytes_per_s:g} bytes a second and {latency_s:g} s latency: the first "
                "must be above zero, the second not below"
            )
        self._bytes_per_s = bytes_per_s
        self._latency_s = latency_s
        self.free_at_s = 0.0  # when the last transfer booked is done
        self.num_bytes = 0.0  # booked so far

    def duration_s(self, num_bytes: float) -> float:
        """Return the seconds of a transfer that waits for no other."""
        return self._latency_s + num_bytes / self._bytes_per_s

    def book(self, num_bytes: float, now_s: float) -> float:
        """Queue a transfer; return when it is done."""
        self.num_bytes += num_bytes
        self.free_at_s = max(self.free_at_s, now_s) + self.duration_s(num_bytes)
        return self.free_at_s
