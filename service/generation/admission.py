"""How many requests are inside the service at once; knows nothing of what they ask."""

from service.errors import OverloadedError


class Admission:
    """A counter with a limit. Belongs to the event loop, so it needs no lock."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self.num_in_flight = 0

    def enter(self) -> "AdmissionSlot":
        """Take a slot; raises OverloadedError when none is left."""
        if self.num_in_flight >= self._max_in_flight:
            raise OverloadedError("the service is at its limit of requests; try again in a few seconds")
        self.num_in_flight += 1
        return AdmissionSlot(self)


class AdmissionSlot:
    """One request's place, given back once however often it is released."""

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def release(self) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.num_in_flight -= 1
