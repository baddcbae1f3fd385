"""What ranks agree on: units and actions before a step, the first error, and an early end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn import Module

from gearshift.training.callbacks.base import Action, WorkerDied

if TYPE_CHECKING:
    from gearshift.engines.base import World


WORKER_DIED = 1 << 11
"""The flag of a rank without a data-loader worker, above those of Action and of the loop."""
_MAX_ERROR_BYTES = 1000
T = TypeVar("T")

Agreed = tuple[Mapping[str, int], int]
"""Units and flags of all ranks."""


def agree_later(world: World, units: Mapping[str, int], flags: int) -> Callable[[], Agreed]:
    """Sum `units` over ranks, and combine `flags` by bitwise or. Collective.

    The result waits for the ranks. All ranks pass the same terms in the same order.
    """
    later = world.agree_later(flags, [*units.values()])

    def result() -> Agreed:
        agreed, sums = later()
        return dict(zip(units, sums, strict=True)), agreed

    return result


def first_error(world: World, error: str | None) -> str | None:
    """The error of the first rank that has one, with its rank; None: no rank failed. Collective.

    `error` is this rank's; a long text is cut.
    """
    if not world.agree(int(error is not None)):
        return None
    backwards = world.size - world.rank if error is not None else 0
    first = world.size - int(world.maximum(torch.tensor([backwards])))
    text = world.broadcast(str(error).encode()[:_MAX_ERROR_BYTES], first)
    where = f"rank {first}: " if world.size > 1 else ""
    return where + text.decode("utf-8", "replace")


def attempt(
    world: World, action: Callable[[], T], *errors: type[Exception]
) -> tuple[T, str | None]:
    """The result of `action` on this rank, and the first of `errors` that any rank met. Collective.

    No rank waits for the others in a collective: an action on a slow disk may outlast its time-out.
    """
    result: Any = None
    error = None
    try:
        result = action()
    except errors as raised:
        error = str(raised)
    world.wait_for_all()
    return result, first_error(world, error)


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

    def check(self, flags: int = 0) -> int:
        """The `flags` of all ranks. Raises Interrupted if one requests the end. Collective."""
        agreed = self.world.agree(flags | int(self.requested()))
        if agreed & ENDING:
            raise Interrupted(Action(agreed & ENDING))
        return agreed

    def between(self, batches: Iterable[T]) -> Iterator[T]:
        """`batches`, with a check before each. Raises WorkerDied on all ranks. Collective."""
        arriving = iter(batches)
        while True:
            error: str | None = None
            batch = None
            try:
                batch = next(arriving, None)
            except WorkerDied as died:
                error = str(died)
            if batch is None and error is None:
                return
            if self.check(WORKER_DIED if error else 0):
                raise WorkerDied(first_error(self.world, error))
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

        def has_failure() -> bool:
            return bool(self.check(_FAILED if failures else 0))

        def before_call(*_: Any) -> None:
            if self._agrees_on_calls:
                if has_failure():
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
            has_failed = has_failure()
        except _OtherRankFailed:
            pass
        if has_failed and failures is not None and not failures:
            failures.append(_OTHER_RANK)
