"""The updates of a stateful optimizer: of one weight, of a list, with a master."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from jax.core import Tracer

from jaxmxopt._core.checks import MismatchError, WrongKindError, check_form, explained, unusable
from jaxmxopt._core.compiled import slots_and_master, with_master
from jaxmxopt._core.definition import HALF
from jaxmxopt._core.layout import Layout
from jaxmxopt._core.state import MasterState
from jaxmxopt._stateful.hyperparameters import Hyperparameters, Undefined
from jaxmxopt._stateful.own_updates import accepted, accepted_list
from jaxmxopt._stateful.plain_states import slots_from_mxnet
from jaxmxopt._stateful.plan import Counted, is_without_decay

__all__ = ["Updates"]


class Updates(Hyperparameters):
    """States and updates, in MXNet's signatures; new weights and states are returned."""

    # Whether a class brings its own `update`, as in MXNet.
    _own_update: ClassVar[bool] = False
    # Whether a weight of a list has ever decayed: from then on no decay compiles anew.
    _decays = False

    @classmethod
    def _look_for_own(cls) -> None:
        super()._look_for_own()
        # This class, which has no name yet when it is made itself.
        base: Any = next(one for one in cls.__mro__ if one.__module__ == __name__)
        own = (cls.update, cls.update_multi_precision)
        cls._own_update = own != (base.update, base.update_multi_precision)

    # States.

    def create_state(self, index: Hashable, weight: Any) -> Any:
        """Makes the state of one weight: the algorithm's slots, by name and in MXNet's order.

        `mean, var = state` for Adam, `()` where nothing is kept. A subclass with its own `update`
        may return anything; None by default.
        """
        if type(self._algorithm) is Undefined:
            return None
        weight = self._algorithm._floating("create_state", index, weight)
        return self._algorithm._checked_slots("create_state", index, weight)

    def create_state_multi_precision(self, index: Hashable, weight: Any) -> Any:
        """Makes the state of one weight, with a float32 master where `multi_precision` wants one.

        Returns:
            What `create_state` gives for the weight; or a `MasterState`, `(master, slots)`, with
            what it gives for the master.

        Raises:
            NotImplementedError: a subclass makes states, and has no update.
        """
        weight = self._algorithm._floating("create_state_multi_precision", index, weight)
        master = self._algorithm._with(multi_precision=self.multi_precision)._master(weight)
        state = self.create_state(index, weight if master is None else master)
        if type(self._algorithm) is Undefined and not self._own_update and state is not None:
            raise NotImplementedError(
                f"{type(self).__name__} must define update(index, weight, grad, state)."
            )
        if not self._own_update:
            state = self._slots_of(
                "create_state", index, weight if master is None else master, state
            )
        return state if master is None else MasterState(master, state)

    # One weight.

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        """Updates one weight, or all of a list in one compiled call.

        Args:
            index: any hashable, or a list of them.
            weight: a floating array, or a list of them.
            grad: an array or `RowSparse` of the shape of the weight, or a list.
            state: what `create_state` or `create_state_multi_precision` gave, or a list. One in
                MXNet's form, without names, is taken too.

        Returns:
            The new weight and state, or two lists. Arrays do not change in place.

        Raises:
            ValueError: shapes do not fit. Nothing has changed then, nor with a TypeError.
            TypeError: an argument is not of the kind needed, or `update` is being traced.
            NotImplementedError: there is no definition, and the subclass has no update.
        """
        algorithm = self._algorithm
        if type(algorithm) is Undefined:
            raise NotImplementedError(f"{type(self).__name__} must define update.")
        if isinstance(index, (list, tuple)):
            return self._update_list(index, weight, grad, state)
        if isinstance(weight, Tracer) or isinstance(grad, Tracer):
            raise self._traced("update", index)
        kind = type(state)
        if kind is tuple or kind not in algorithm._slot_types:
            state = self._slots_of("update", index, weight, state)
        counts, largest = self._index_update_count, self.num_update
        try:
            before = counts.get(index)
        except TypeError:
            raise self._unhashable(index) from None
        try:
            counted = self._counted(index)
            plan = self._plan or self._planned(counted)
            if algorithm._slots_by is not None:
                check_form(algorithm, slots_and_master(state)[:1])
            updated = plan.update(index, self._name, counted, weight, grad, state)
            # Something else may be traced: a state, rows, or all that happens inside of jax.jit.
            if isinstance(updated[0], Tracer):
                raise self._traced("update", index)
            return updated
        except BaseException as error:
            self._rewind(counts, {index: before}, largest)
            wrong: Any = error
            if not isinstance(error, (MismatchError, WrongKindError)):
                wrong = unusable(error, weight=weight, grad=grad, state=state)
            if wrong is None:
                raise
            raise explained(f"{type(self).__name__}.update", wrong, index) from None

    def update_multi_precision(
        self, index: Any, weight: Any, grad: Any, state: Any
    ) -> tuple[Any, Any]:
        """Updates like `update`, which follows the state it is given.

        For a subclass with its own `update` it unpacks a state with a master, lets `update` work
        on the master, and rounds.
        """
        if isinstance(index, (list, tuple)) or not self._own_update:
            return self.update(index, weight, grad, state)
        if not (self.multi_precision and weight.dtype in HALF):
            return self.update(index, weight, grad, state)
        master, inner = state
        updated = self.update(index, master, grad.astype(master.dtype), inner)
        master, inner = self._accepted(index, master, inner, updated)
        return master.astype(weight.dtype), MasterState(master, inner)

    # Many weights.

    def _update_list(
        self, indices: Sequence[Any], weights: Any, grads: Any, states: Any
    ) -> tuple[list[Any], list[Any]]:
        call, count = f"{type(self).__name__}.update", len(indices)
        for what, given in (("weight", weights), ("grad", grads), ("state", states)):
            if not isinstance(given, (list, tuple)) or len(given) != count:
                size = len(given) if isinstance(given, (list, tuple)) else type(given).__name__
                raise ValueError(
                    f"{call}: {what} must be a list of {count}, as index is, got {size}."
                )
        if count == 0:
            return [], []
        for index, grad in zip(indices, grads, strict=True):
            if grad is None:
                raise TypeError(f"{call}({index!r}): grad must be an array, got NoneType.")
        layout = Layout(tuple((number,) for number in range(count)))
        given = zip(indices, weights, states, strict=True)
        parts = [slots_and_master(self._slots_of("update", *one)) for one in given]
        slots, masters = layout.pack([s for s, _ in parts]), layout.pack([m for _, m in parts])
        weights, slots, masters = self._update_laid_out(
            indices, list(weights), list(grads), slots, masters, call
        )
        return weights, list(map(with_master, slots.groups, masters.groups))

    def _update_laid_out(
        self,
        indices: Sequence[Any],
        weights: list[Any],
        grads: list[Any],
        slots: Any,
        masters: Any,
        call: str,
        donate: bool = False,
    ) -> Any:
        """Updates many weights in one compiled call; those whose gradient is None stay."""
        if _any_traced(weights) or _any_traced(grads):
            raise self._traced("update", list(indices))
        updated = [i for i, grad in zip(indices, grads, strict=True) if grad is not None]
        if not updated:
            return weights, slots, masters
        if len(set(indices)) < len(indices):
            double = next(i for n, i in enumerate(indices) if i in indices[:n])
            raise ValueError(f"{call}: every index must be given once, got {double!r} twice.")
        counts, largest = self._index_update_count, self.num_update
        before = self._counts_of(updated)
        try:
            distinct, which = self._counted_all(updated)
            plan = self._planned(distinct[0])
            if len(updated) < len(indices):
                numbers = dict(zip(updated, which, strict=True))
                which = [numbers.get(index, 0) for index in indices]
            check_form(self._algorithm, slots.groups, [m[0] for m in slots.layout.groups])
            rates = plan.rates(distinct, self._decays)
            self.__dict__["_decays"] = not is_without_decay(rates[0])
            run = plan.run_all(indices, self._name, donate, slots, rates)
            result = run(*plan.table(rates, which), weights, slots, masters, grads)
            if _any_traced(result[0]):
                raise self._traced("update", list(indices))
            return result
        except BaseException as error:
            self._rewind(counts, before, largest)
            if isinstance(error, (MismatchError, WrongKindError)):
                # The compiled function knows a weight by its number.
                number: Any = error.index
                named = None if number is None else indices[number]
                raise explained(call, error, named) from None
            wrong = _unusable_of(error, indices, weights, grads, slots, masters)
            if wrong is None:
                raise
            named = {str(index): index for index in indices}.get(str(wrong.index))
            raise explained(call, wrong, named) from None

    def _update_each(
        self, indices: Sequence[Any], weights: Sequence[Any], grads: Sequence[Any], states: Any
    ) -> tuple[list[Any], list[Any]]:
        """Updates many weights with whatever `update` the class has, if need be one by one."""
        if not self._own_update:
            return self.update(list(indices), weights, grads, states)
        counts, largest = self._index_update_count, self.num_update
        before = self._counts_of(indices)
        new, new_states = list(weights), list(states)
        try:
            for some in _batches(weights, self.aggregate_num):
                arguments = [
                    [given[n] for n in some] for given in (indices, weights, grads, states)
                ]
                several = self.aggregate_num > 0
                if not several:
                    arguments = [given[0] for given in arguments]
                updated = self.update_multi_precision(*arguments)
                index, old, _, state = arguments
                accept = self._accepted_list if several else self._accepted
                pairs = accept(index, old, state, updated)
                for n, pair in zip(some, pairs if several else [pairs], strict=True):
                    new[n], new_states[n] = pair
        except BaseException:
            self._rewind(counts, before, largest)
            raise
        return new, new_states

    # What goes wrong.

    def _traced(self, call: str, index: Any) -> TypeError:
        return TypeError(
            f"{type(self).__name__}.{call}({index!r}): weight, grad and state must be "
            "arrays, got a tracer. The counts live on the host, where jax.jit would count once "
            "for all calls: use `definition` there."
        )

    def _unhashable(self, index: Any) -> TypeError:
        return TypeError(f"{type(self).__name__}.update: index must be hashable, got {index!r}.")

    def _accepted(self, index: Any, weight: Any, state: Any, updated: Any) -> tuple[Any, Any]:
        """What an `update` of a subclass returned, if it is what it should be."""
        return accepted(f"{type(self).__name__}.update", index, weight, state, updated)

    def _accepted_list(self, indices: Any, weights: Any, states: Any, updated: Any) -> list[Any]:
        return accepted_list(f"{type(self).__name__}.update", indices, weights, states, updated)

    # Pieces of the above.

    def _adds_up(self) -> bool:
        """Whether gradients of several calls make an update."""
        return False

    def _slots_of(self, call: str, index: Any, weight: Any, state: Any) -> Any:
        """A state with the names of the algorithm, also where it is given as MXNet's."""
        slots = state.slots if type(state) is MasterState else state
        kind, kinds = type(slots), self._algorithm._slot_types
        # A tuple is of our form where it is empty, or where there is no NamedTuple.
        ours = kind in kinds and (kind is not tuple or not slots or set(kinds) == {tuple})
        if ours or not hasattr(weight, "dtype"):
            return state
        where = f"{type(self).__name__}.{call}({index!r})"
        return slots_from_mxnet(where, self._algorithm, index, weight, state)

    def _name(self, index: Hashable) -> str:
        return self.idx2name.get(index) or str(index)

    def _counted(self, index: Hashable) -> Counted:
        """Counts one update of one weight; gives its learning rate, decay and count."""
        if self._algorithm._schedule_lag:
            lr = self._lagging_lr(index)
            self._update_count(index)
            return lr, self._get_wd(index), self._count_of(index)
        if self.lr_mult or self.wd_mult or self.param_dict or self._own_rates:
            self._update_count(index)
            return self._get_lr(index), self._get_wd(index), self._count_of(index)
        # As `_update_count`, `learning_rate` and `wd` would, without the calls, which cost more
        # than what they do.
        counts = self._index_update_count
        counts[index] = count = counts.get(index, self.begin_num_update) + 1
        if count > self.num_update:
            self.__dict__["num_update"] = count
        return self.learning_rate, self.wd, count

    def _counted_all(self, indices: Sequence[Hashable]) -> tuple[list[Counted], list[int]]:
        """Counts one update of each of several weights.

        Returns:
            What is distinct of what `_counted` gives, and the number in it of that of each weight.
        """
        counts, begin = self._index_update_count, self.begin_num_update
        in_step = len({counts.get(index, begin) for index in indices}) == 1
        together = in_step or self._algorithm._counts_together
        if self._algorithm._schedule_lag or not together:
            return [self._counted(index) for index in indices], list(range(len(indices)))
        self._update_count(indices)
        after = [counts.get(index, begin) for index in indices]
        # Multipliers may be arrays.
        lrs, wds = (map(float, rates) for rates in self._lrs_and_wds(indices))
        asked = list(zip(lrs, wds, after, strict=True))
        numbers = {key: number for number, key in enumerate(dict.fromkeys(asked))}
        return list(numbers), [numbers[key] for key in asked]

    def _lagging_lr(self, index: Hashable) -> float:
        """The learning rate for the count before this update: the weight's own.

        MXNet asks for the largest count of any weight, which depends on the order of the calls.
        """
        largest, self.num_update = self.num_update, self._count_of(index)
        lr = self._get_lr(index)
        self.num_update = largest
        return lr

    def _count_of(self, index: Hashable) -> int:
        return self._index_update_count.get(index, self.begin_num_update)

    def _counts_of(self, indices: Sequence[Any]) -> dict[Any, int | None]:
        """The counts of some indices, to return to if their update fails."""
        try:
            return {index: self._index_update_count.get(index) for index in indices}
        except TypeError:
            raise self._unhashable(indices) from None

    def _rewind(
        self, counts: dict[Any, int], before: Mapping[Any, int | None], largest: int
    ) -> None:
        """Sets counts back: the update has failed."""
        for index, count in before.items():
            if count is None:
                counts.pop(index, None)
            else:
                counts[index] = count
        self.num_update = largest


def _unusable_of(
    error: BaseException, indices: Sequence[Any], weights: Any, grads: Any, slots: Any, masters: Any
) -> MismatchError | None:
    """`unusable` of what `_update_laid_out` was given, by index."""
    names = [str(index) for index in indices]
    firsts = [names[members[0]] for members in slots.layout.groups]
    return unusable(
        error,
        weight=dict(zip(names, weights, strict=True)),
        state=dict(zip(firsts, map(with_master, slots.groups, masters.groups), strict=True)),
        grad=dict(zip(names, grads, strict=True)),
    )


def _any_traced(arrays: Sequence[Any]) -> bool:
    return any(isinstance(array, Tracer) for array in arrays)


def _batches(weights: Sequence[Any], size: int) -> list[list[int]]:
    """The numbers of the weights in lists of one dtype, of at most `size` each."""
    by_dtype: dict[Any, list[int]] = {}
    for number, weight in enumerate(weights):
        by_dtype.setdefault(weight.dtype if size > 0 else None, []).append(number)
    size = max(size, 1)
    return [
        numbers[start : start + size]
        for numbers in by_dtype.values()
        for start in range(0, len(numbers), size)
    ]
