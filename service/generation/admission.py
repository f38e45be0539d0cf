"""How many requests are inside the service at once; knows nothing of what they ask."""

from service.errors import OverloadedError


class Admission:
    """A counter with a limit. Belongs to the event loop, so it needs no lock."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self.num_in_flight = 0

    def enter(self, num_places: int = 1) -> "AdmissionSlot":
        """Take a slot of so many places; raises OverloadedError when they are not left."""
        if self.num_in_flight + num_places > self._max_in_flight:
            raise OverloadedError("the service is at its limit of requests; try again in a few seconds")
        self.num_in_flight += num_places
        return AdmissionSlot(self, num_places)


class AdmissionSlot:
    """One request's places, given back once however often they are released."""

    def __init__(self, admission: Admission, num_places: int) -> None:
        self._admission: Admission | None = admission
        self._num_places = num_places

    def release(self) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.num_in_flight -= self._num_places
