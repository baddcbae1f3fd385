"""Interruption: a signal or a deadline ends an evaluation or a preview early, on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from torch.nn import Module

from gearshift.training.agreement import WORKER_DIED, first_error
from gearshift.training.callbacks.base import Action
from gearshift.training.stop_reason import WorkerDied

if TYPE_CHECKING:
    from gearshift.engines.base import World

T = TypeVar("T")
ENDING = Action.SIGNAL | Action.INTERRUPT
"""The actions that end an evaluation before its end."""
_FAILED = 1 << 10  # A flag above those of ENDING
_OTHER_RANK = "another rank could not make them"


class Interrupted(BaseException):
    """An evaluation or a preview ended early, on all ranks; as KeyboardInterrupt, no Exception.

    Tasks and trackers may catch every Exception.
    """

    def __init__(self, actions: Action) -> None:
        super().__init__(actions)
        self.actions = actions
        """What the ranks agreed on."""


class _RankInterrupted(BaseException):
    """This rank leaves a forward pass, and agrees with the others afterwards."""


class _OtherRankFailed(BaseException):
    """A rank will not call the model any more."""


class Interruption:
    """Checks between batches and before each forward pass whether the run must end.

    Models know nothing of it: a hook of the module sees each of their calls, such as each step of
    a decoder. Ranks agree between batches, and before each call if calls gather weights: those are
    equally many on all ranks. Otherwise a rank leaves its batch alone, and agrees after it.
    """

    def __init__(
        self,
        world: World,
        requested: Callable[[], Action] = lambda: Action.NOTHING,
        *,
        gathers_weights: bool = False,
    ) -> None:
        """`requested` are the actions that this rank requests now; `gathers_weights` as Engine."""
        self.world = world
        self._requested = requested
        self._agrees_on_calls = gathers_weights and world.size > 1

    def requested(self) -> Action:
        """What this rank requests now, of the actions that end an evaluation."""
        return self._requested() & ENDING

    def check(self, error: WorkerDied | None = None) -> None:
        """Raise WorkerDied if any rank has an `error`, Interrupted if one requests the end.

        Collective.
        """
        flags = int(self.requested())
        text = None
        if error is not None:
            flags |= WORKER_DIED
            text = str(error)
        agreed = self.world.agree(flags)
        if agreed & WORKER_DIED:
            raise WorkerDied(first_error(self.world, text))
        if agreed:
            raise Interrupted(Action(agreed))

    def between(self, batches: Iterable[T]) -> Iterator[T]:
        """`batches`, with a check before each. Collective."""
        arriving = iter(batches)
        while True:
            error = None
            batch = None
            try:
                batch = next(arriving, None)
            except WorkerDied as died:
                error = died
            if batch is None and error is None:
                return
            self.check(error)
            assert batch is not None
            yield batch

    @contextmanager
    def watching(self, module: Module, failures: list[str] | None = None) -> Iterator[None]:
        """Within, calls of `module` are checked, and all at the end. Collective.

        A rank whose work fails within adds to `failures`; then all ranks end theirs, and have an
        entry. Blocks that are compiled must run as they are meanwhile.
        """
        # A module that is compiled as a whole would be compiled again with the hook.
        is_eager = failures is not None or getattr(module, "_compiled_call_impl", None) is None
        hooked = module if is_eager else Module()

        def check() -> bool:
            flags = int(self.requested())
            if failures:
                flags |= _FAILED
            agreed = self.world.agree(flags)
            if agreed & ENDING:
                raise Interrupted(Action(agreed & ENDING))
            return bool(agreed & _FAILED)

        def before_call(*_: Any) -> None:
            if self._agrees_on_calls:
                if check():
                    raise _OtherRankFailed
            elif self.requested():
                raise _RankInterrupted

        hook = hooked.register_forward_pre_hook(before_call, prepend=True)
        has_failed = True
        try:
            with suppress(_RankInterrupted):
                try:
                    yield
                finally:
                    hook.remove()
            has_failed = check()
        except _OtherRankFailed:
            pass
        if has_failed and failures is not None and not failures:
            failures.append(_OTHER_RANK)
