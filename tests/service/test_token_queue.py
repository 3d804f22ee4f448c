from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from service.token_queue import TokenQueue


@dataclass(eq=False)
class Item:
    tokens: int
    given_up: bool = False
    choice: str = ""


def queue_of(*items: Item) -> TokenQueue[Item]:
    queue: TokenQueue[Item] = TokenQueue()
    for item in items:
        queue.add(item)
    return queue


@given(st.lists(st.builds(Item, st.integers(1, 9), st.booleans())), st.integers(1, 20))
def test_every_item_is_taken_once_in_order_within_the_budget_or_alone(items: list[Item], budget: int) -> None:
    queue = queue_of(*items)
    taken: list[Item] = []
    while queue:
        batch = queue.take(budget)
        assert sum(item.tokens for item in batch) <= budget or len(batch) == 1
        taken += batch
        assert queue.tokens == sum(item.tokens for item in items) - sum(
            item.tokens for item in items[: len(items) - len(queue)]
        )
    assert taken == [item for item in items if not item.given_up]


def test_a_batch_is_as_full_as_the_order_of_arrival_allows() -> None:
    small, large, last = Item(3), Item(8), Item(1)
    queue = queue_of(small, large, last)
    assert queue.take(10) == [small]
    assert queue.take(10) == [large, last]


def test_what_was_removed_is_not_taken_and_removing_it_again_changes_nothing() -> None:
    leaving, staying = Item(5), Item(3)
    queue = queue_of(leaving, staying)
    for _ in range(2):
        queue.remove(leaving)
        assert (len(queue), queue.tokens) == (1, 3)
    assert queue.take(10) == [staying]


@given(st.lists(st.builds(Item, st.integers(1, 9), choice=st.sampled_from("abc"))), st.integers(1, 20))
def test_choices_never_mix_and_the_oldest_of_all_goes_next(items: list[Item], budget: int) -> None:
    queue = queue_of(*items)
    waiting = list(items)
    while queue:
        batch = queue.take(budget)
        assert batch[0] is waiting[0]
        assert batch == [item for item in waiting if item.choice == batch[0].choice][: len(batch)]
        waiting = [item for item in waiting if item not in batch]
    assert waiting == []
