"""Places are taken, given back once, and refused."""

import pytest

from service.errors import OverloadedError
from service.generation.admission import Admission


def test_a_place_is_given_back_once() -> None:
    admission = Admission(2)
    first, second = admission.enter(), admission.enter()
    with pytest.raises(OverloadedError):
        admission.enter()
    first.release()
    first.release()
    assert admission.num_in_flight == 1
    third = admission.enter()
    assert admission.num_in_flight == 2
    third.release()
    second.release()
    assert admission.num_in_flight == 0


def test_several_places_are_taken_together_or_not_at_all() -> None:
    admission = Admission(3)
    slot = admission.enter(2)
    with pytest.raises(OverloadedError):
        admission.enter(2)
    assert admission.num_in_flight == 2
    slot.release()
    slot.release()
    assert admission.num_in_flight == 0
