from __future__ import annotations

import gc

import pytest

from drover.domain.garbage import no_looks


def test_looks_are_put_off_and_made_again_whatever_happens_inside() -> None:
    with pytest.raises(ValueError, match="inside"), no_looks():
        assert not gc.isenabled()
        with no_looks():
            pass
        assert not gc.isenabled()
        raise ValueError("inside")
    assert gc.isenabled()


def test_who_has_switched_them_off_finds_them_off() -> None:
    gc.disable()
    try:
        with no_looks():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
