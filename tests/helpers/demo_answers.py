"""Answers to the bundled demo problems, by exhaustive search: independent of whoever wrote them down."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import combinations, permutations, product
from math import comb, factorial, gcd, isqrt


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, isqrt(n) + 1))


def _collatz(n: int) -> int:
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def _tilings(length: int) -> int:
    ways = [1, 1, 2]
    while len(ways) <= length:
        ways.append(ways[-1] + ways[-2] + ways[-3])
    return ways[length]


@cache
def _change(cents: int, coins: tuple[int, ...]) -> int:
    if cents == 0:
        return 1
    if cents < 0 or not coins:
        return 0
    return _change(cents - coins[0], coins) + _change(cents, coins[1:])


def _paths_avoiding(size: int, blocked: set[tuple[int, int]]) -> int:
    ways = {(0, 0): 1}
    for x, y in product(range(size + 1), repeat=2):
        if (x, y) in blocked:
            ways[x, y] = 0
        elif (x, y) != (0, 0):
            ways[x, y] = ways.get((x - 1, y), 0) + ways.get((x, y - 1), 0)
    return ways[size, size]


def _josephus(people: int, step: int) -> int:
    circle, at = list(range(1, people + 1)), 0
    while len(circle) > 1:
        at = (at + step - 1) % len(circle)
        circle.pop(at)
    return circle[0]


def _triangles() -> int:
    return sum(1 for a in range(1, 41) for b in range(a, 41) for c in [40 - a - b] if c >= b and a + b > c)


def _expected_rolls() -> int:
    # Rolls until all four faces of a fair four-sided die have appeared, times 3.
    return int(3 * sum(Fraction(4, 4 - seen) for seen in range(4)))


def _seatings() -> int:
    # Around a round table of 7, rotations alike; persons 0 and 1 not side by side.
    good = 0
    for rest in permutations(range(1, 7)):
        ring = (0, *rest)
        at = ring.index(1)
        good += at not in (1, 6)
    return good


def _lattice_points() -> int:
    return sum(1 for x, y in product(range(-10, 11), repeat=2) if x * x + y * y <= 100 and gcd(x, y) == 1)


def _words() -> int:
    return sum(1 for word in product("abc", repeat=7) if "aa" not in "".join(word))


def _last_digits() -> int:
    return pow(7, 2026, 1000)


ANSWERS: dict[str, Callable[[], int]] = {
    "bakery": lambda: next(n for n in range(1, 999) if n % 7 == 3 and n % 11 == 5 and n % 13 == 0),
    "stairs": lambda: _tilings(10),
    "locker": lambda: sum(1 for n in range(1, 301) if len(_divisors(n)) % 2),
    "tram": lambda: sum(1 for a, b, c in product(range(10), repeat=3) if a + b + c == 13),
    "kiosk": lambda: _change(100, (5, 10, 20, 50)),
    "grid-walk": lambda: _paths_avoiding(6, {(2, 3), (4, 4)}),
    "counting-out": lambda: _josephus(50, 3),
    "fence": _triangles,
    "four-faces": _expected_rolls,
    "round-table": _seatings,
    "lighthouse": _lattice_points,
    "no-double-a": _words,
    "seven-power": _last_digits,
    "prime-street": lambda: sum(p for p in range(100, 200) if _prime(p)),
    "hailstone": lambda: max(range(1, 100), key=_collatz),
    "postcards": lambda: sum(1 for p in permutations(range(6)) if sum(p[i] == i for i in range(6)) == 2),
    "committee": lambda: comb(9, 4) * comb(7, 3) - comb(8, 3) * comb(6, 2),
    "zeros": lambda: len(str(factorial(130))) - len(str(factorial(130)).rstrip("0")),
    "mirror-years": lambda: sum(
        1 for y in range(1000, 10000) if str(y) == str(y)[::-1] and y % 11 == 0 and y % 3 == 0
    ),
    "crates": lambda: sum(1 for a, b, c in product(range(1, 61), repeat=3) if a <= b <= c and a * b * c == 360),
    "subset-sum": lambda: sum(1 for k in range(1, 13) for s in combinations(range(1, 13), k) if sum(s) % 5 == 0),
    "two-clocks": lambda: next(m for m in range(1, 10**5) if m * 5 % 720 == 0 and m * 8 % 720 == 0),
    "phone-tree": lambda: sum(3**k for k in range(6)),
    "neighbour-digits": lambda: sum(
        1
        for n in range(1000, 10000)
        if all(abs(int(a) - int(b)) == 1 for a, b in zip(str(n), str(n)[1:], strict=False))
    ),
    "chess-pieces": lambda: sum(
        1
        for a, b in combinations(product(range(6), repeat=2), 2)
        if abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1
    ),
    "bit-count": lambda: sum(bin(n).count("1") for n in range(1, 129)),
    "sum-of-squares": lambda: sum(
        1 for n in range(1, 201) if any(isqrt(n - a * a) ** 2 == n - a * a for a in range(isqrt(n) + 1))
    ),
    "dice-product": lambda: sum(1 for d in product(range(1, 7), repeat=3) if d[0] * d[1] * d[2] % 12 == 0),
    "gcd-table": lambda: sum(gcd(a, 24) for a in range(1, 25)),
    "necklace": lambda: len({min(b[i:] + b[:i] for i in range(6)) for b in product("xyz", repeat=6)}),
    "ladder": lambda: next(n for n in range(2, 10**6) if sum(range(1, n + 1)) > 100_000),
    "reciprocals": lambda: sum(
        1 for a in range(13, 200) for b in [Fraction(1, 12) - Fraction(1, a)] if b > 0 and b.numerator == 1
    ),
    "sieve": lambda: sum(1 for n in range(1, 1001) if all(n % d for d in (2, 3, 5, 7))),
    "tiling-strip": lambda: sum(comb(12 - k, k) * 2 ** (12 - 2 * k) for k in range(7)),
}
