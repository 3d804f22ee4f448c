import os
import signal

import pytest

from service.stop_signals import STOPPING, StopSignals


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_breaks_off_the_start(number: int) -> None:
    with StopSignals(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
        signal.pause()


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_that_came_while_held_is_a_wish_that_is_not_lost(number: int) -> None:
    with StopSignals() as signals:
        signals.hold()
        os.kill(os.getpid(), number)
        signals.wait()


def test_what_somebody_took_is_taken_back_and_in_the_end_left_to_whoever_had_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.take()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
    assert signal.getsignal(signal.SIGTERM) == before
