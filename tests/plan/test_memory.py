"""plan/memory.py: what lives at the same time lies apart."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from bitinfer.plan.memory import ALIGNMENT, Request, place


@st.composite
def requests(draw: st.DrawFn) -> Request:
    first = draw(st.integers(0, 12))
    return Request(draw(st.integers(0, 1000)), first, first + draw(st.integers(0, 6)))


def overlap(a: Request, b: Request) -> bool:
    return a.first <= b.last and b.first <= a.last


@hypothesis.given(st.lists(requests(), max_size=12))
def test_requests_that_live_at_the_same_time_share_no_byte(wanted: list[Request]) -> None:
    offsets, total = place(wanted)
    assert len(offsets) == len(wanted)
    for i, a in enumerate(wanted):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + a.size <= total
        for j, b in enumerate(wanted[:i]):
            apart = offsets[i] + a.size <= offsets[j] or offsets[j] + b.size <= offsets[i]
            assert apart or not overlap(a, b)


@hypothesis.given(st.lists(requests(), max_size=12))
def test_the_arena_is_no_larger_than_all_requests_together(wanted: list[Request]) -> None:
    sizes = [-(-r.size // ALIGNMENT) * ALIGNMENT for r in wanted]
    _, total = place(wanted)
    assert max(sizes, default=0) <= total <= sum(sizes)


def test_a_chain_takes_the_room_of_its_two_largest_neighbours() -> None:
    chain = [Request(size, i, i + 1) for i, size in enumerate((64, 640, 128, 640, 64))]
    assert place(chain)[1] == 640 + 128


def test_the_same_requests_get_the_same_places() -> None:
    wanted = [Request(100, i % 3, i % 3 + 1) for i in range(9)]
    assert place(wanted) == place(list(wanted))


def test_no_requests_take_no_room() -> None:
    assert place([]) == ([], 0)


def test_requests_for_nothing_take_no_place() -> None:
    offsets, total = place([Request(0, 0, 9), Request(64, 0, 9), Request(0, 3, 4)])
    assert total == 64
    assert offsets[1] == 0
