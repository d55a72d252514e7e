"""Numba's simulator with threads that take turns: each runs up to its next barrier, and wakes the one that comes next.

Numba lets all threads of a block run at once, which in Python is slower than one after another, and asks them in a loop
whether they have come to a barrier. Here their order is drawn anew after each barrier, so that some thread reads too early
where a barrier is missing.
"""

import random
import threading
from typing import Any

import numpy as np
from numba.cuda.simulator import kernel


class _Thread(kernel.BlockThread):
    """A thread that runs when it is its turn."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.turn = threading.Lock()
        self.turn.acquire()

    def run(self) -> None:
        self.turn.acquire()
        super().run()
        self._manager.failed = self._manager.failed or self.exception
        self._manager.next_turn()

    def syncthreads(self) -> None:
        self._manager.waiting.append(self)
        self._manager.next_turn()
        self.turn.acquire()
        if self._manager.failed:
            raise RuntimeError("another thread has failed")


class _Block(kernel.BlockManager):
    """The threads of a block. As one of them runs at a time, it needs no locks of its own."""

    def run(self, grid_point: Any, *arguments: Any) -> None:
        self.failed: Any = None
        places = np.ndindex(*self._block_dim)
        self.waiting = [
            _Thread(lambda: self._f(*arguments), self, grid_point, place, self._debug) for place in places
        ]  # at the barrier; the first one is the start
        self._ready: list[_Thread] = []
        self._order, self._over = random.Random(0), threading.Lock()
        self._over.acquire()
        for thread in self.waiting:
            thread.start()
        self.next_turn()
        self._over.acquire()
        if self.failed:
            raise self.failed[0].with_traceback(self.failed[1])

    def next_turn(self) -> None:
        """Wake the next thread; when all have come to the barrier or to their end, those at the barrier may go on."""
        if not self._ready:
            self._ready, self.waiting = self.waiting, []
            self._order.shuffle(self._ready)
        if self._ready:
            self._ready.pop().turn.release()
        else:
            self._over.release()


def take_turns() -> None:
    """From now on, in this process."""
    kernel.BlockManager = _Block
