"""Yosys's word-level cells over three-valued bits, lowest first: 0, 1, and None for unknown."""

__all__ = ["OPERATIONS", "merge"]


def merge(values):
    """The value that all agree on, else unknown."""
    first, *rest = values
    return first if all(value == first for value in rest) else None


def _signed(parameters, port):
    return parameters.get(f"{port}_SIGNED", "0").endswith("1")


def _extended(bits, width, signed):
    """Cut or extend to ``width``."""
    fill = bits[-1] if signed and bits else 0
    return [*bits[:width], *[fill] * (width - len(bits))]


def _number(bits, signed):
    """The integer, or None if a bit is unknown."""
    if None in bits:
        return None
    value = sum(bit << index for index, bit in enumerate(bits))
    return value - (1 << len(bits)) if signed and bits and bits[-1] else value


def _bits(value, width):
    return [None] * width if value is None else [value >> index & 1 for index in range(width)]


def _not(a):
    return None if a is None else 1 - a


def _and(a, b):
    return 0 if 0 in (a, b) else None if None in (a, b) else 1


def _or(a, b):
    return 1 if 1 in (a, b) else None if None in (a, b) else 0


def _xor(a, b):
    return None if None in (a, b) else a ^ b


def _bitwise(function):
    def operation(words, parameters, width):
        sides = [_extended(words[p], width, _signed(parameters, p)) for p in ("A", "B") if p in words]
        return [function(*bits) for bits in zip(*sides, strict=True)]

    return operation


def _operands(words, parameters):
    """Both operands as integers; a sign counts only if both have one."""
    signed = _signed(parameters, "A") and _signed(parameters, "B")
    return _number(words["A"], signed), _number(words["B"], signed)


def _arithmetic(function):
    """Sums and products: bit i depends on the bits up to i alone, so those below the lowest unknown one are known."""

    def operation(words, parameters, width):
        signed = _signed(parameters, "A") and _signed(parameters, "B")
        a, b = (_extended(words[port], width, signed) for port in ("A", "B"))
        if function is _times and any(all(bit == 0 for bit in side) for side in (a, b)):
            return [0] * width
        known = min((side.index(None) for side in (a, b) if None in side), default=width)
        result = function(_number(a[:known], False), _number(b[:known], False))
        return [*_bits(result, known), *[None] * (width - known)]

    return operation


def _times(a, b):
    return a * b


def _comparison(function):
    def operation(words, parameters, width):
        a, b = _operands(words, parameters)
        return _extended([None if None in (a, b) else int(function(a, b))], width, False)

    return operation


def _equality(equal):
    """Two words differ as soon as two known bits do."""

    def operation(words, parameters, width):
        size = max(len(words["A"]), len(words["B"]))
        signed = _signed(parameters, "A") and _signed(parameters, "B")
        a, b = (_extended(words[port], size, signed) for port in ("A", "B"))
        differences = [_xor(*bits) for bits in zip(a, b, strict=True)]
        result = 0 if 1 in differences else None if None in differences else 1
        return _extended([result if equal else _not(result)], width, False)

    return operation


def _reduction(function, start, invert=False):
    def operation(words, parameters, width):
        result = start
        for bit in words["A"]:
            result = function(result, bit)
        return _extended([_not(result) if invert else result], width, False)

    return operation


def _shift(right, *, arithmetic=False, both=False):
    """Shifts by a known amount; by an unknown one only a word of equal bits is known."""

    def operation(words, parameters, width):
        signed = _signed(parameters, "A")
        fill = signed and (arithmetic or not right)
        a = _extended(words["A"], max(width, len(words["A"])), signed)
        amount = _number(words["B"], both and _signed(parameters, "B"))
        if amount is None:
            return [0 if all(bit == 0 for bit in a) else None] * width
        if not right:
            amount = -amount
        top = a[-1] if fill else 0
        return [
            a[index + amount] if 0 <= index + amount < len(a) else top if index + amount >= len(a) else 0
            for index in range(width)
        ]

    return operation


def _mux(words, parameters, width):
    chosen = words["S"][0]
    if chosen is None:
        return [merge(bits) for bits in zip(words["A"], words["B"], strict=True)]
    return words["B"] if chosen else words["A"]


def _pmux(words, parameters, width):
    """One of several, chosen by one hot bit, or A if none is; two hot bits may give anything."""
    select = words["S"]
    sure, unsure = select.count(1), select.count(None)
    if sure > 1 or (sure and unsure) or unsure > 1:
        return [None] * width
    candidates = [words["B"][i * width : (i + 1) * width] for i, bit in enumerate(select) if bit != 0]
    if not sure:
        candidates.append(words["A"])
    return [merge(bits) for bits in zip(*candidates, strict=True)]


OPERATIONS = {
    "$not": _bitwise(_not),
    "$and": _bitwise(_and),
    "$or": _bitwise(_or),
    "$xor": _bitwise(_xor),
    "$add": _arithmetic(lambda a, b: a + b),
    "$sub": _arithmetic(lambda a, b: a - b),
    "$mul": _arithmetic(_times),
    "$lt": _comparison(lambda a, b: a < b),
    "$le": _comparison(lambda a, b: a <= b),
    "$gt": _comparison(lambda a, b: a > b),
    "$ge": _comparison(lambda a, b: a >= b),
    "$eq": _equality(True),
    "$ne": _equality(False),
    "$reduce_and": _reduction(_and, 1),
    "$reduce_or": _reduction(_or, 0),
    "$reduce_bool": _reduction(_or, 0),
    "$reduce_xor": _reduction(_xor, 0),
    "$logic_not": _reduction(_or, 0, invert=True),
    "$shl": _shift(False),
    "$shr": _shift(True),
    "$sshr": _shift(True, arithmetic=True),
    "$shift": _shift(True, both=True),
    "$mux": _mux,
    "$pmux": _pmux,
}
