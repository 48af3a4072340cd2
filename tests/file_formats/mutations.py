"""Damage as it happens to files, and as an enemy would do it: drawn at random from a seed."""

import random


def mutated(content: bytes, seed: int) -> bytes:
    """The content with one to three of: bits flipped, a stretch replaced, taken out, doubled; or cut."""
    draw = random.Random(seed)
    data = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        if not data:
            break
        place, length = draw.randrange(len(data)), draw.choice([1, 1, 2, 4, 8])
        kind = draw.randrange(6)
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[place : place + length] = draw.choice([b"\xff", b"\x00", b"\x7f"]) * length
        elif kind == 2:
            data[place : place + length] = draw.randbytes(length)
        elif kind == 3:
            del data[place : place + length * draw.choice([1, 10])]
        elif kind == 4:
            data[place:place] = data[place : place + length * draw.choice([1, 10])]
        else:
            del data[draw.choice([place, len(data) - length]) :]
    return bytes(data)
