"""Kubernetes quantities in the spelling in which the API server returns them.

The server rewrites `1024Mi` to `1Gi` and `2000m` to `2`. A quantity from the spec that is passed on
as written would look like drift for ever. Source: k8s.io/apimachinery, pkg/api/resource/quantity.go
(CanonicalizeBytes).
"""

from __future__ import annotations

import decimal
import re

_PATTERN = re.compile(r"^([+-]?[0-9]+\.?[0-9]*|[+-]?\.[0-9]+)([KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]+)$")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {-3: "n", -2: "u", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}
_DECIMAL_BY_SUFFIX = {suffix: exponent for exponent, suffix in _DECIMAL.items()}


def canonical(text: str) -> str:
    """`text` as the server spells it; unchanged if it is not a quantity, for the server to refuse."""
    match = _PATTERN.match(text.strip())
    if match is None:
        return text
    number, suffix = decimal.Decimal(match[1]), match[2]
    with decimal.localcontext() as context:
        context.prec = 60
        if suffix in _BINARY[1:]:
            return _binary(value(text))
        if suffix[:1] in ("e", "E") and len(suffix) > 1:
            mantissa, exponent = _groups(number.scaleb(int(suffix[1:])))
            return f"{mantissa}e{3 * exponent}" if exponent else str(mantissa)
        mantissa, exponent = _groups(number.scaleb(3 * _DECIMAL_BY_SUFFIX[suffix]))
        return f"{mantissa}{_DECIMAL[exponent]}"


def value(text: str) -> decimal.Decimal:
    """The number that `text` stands for; 0 if it is not a quantity."""
    try:
        return parse(text)
    except ValueError:
        return decimal.Decimal(0)


def parse(text: str) -> decimal.Decimal:
    """The number that `text` stands for.

    Raises:
        ValueError: not a quantity.
    """
    match = _PATTERN.match(text.strip())
    if match is None:
        raise ValueError(f"not a quantity: {text!r}")
    number, suffix = decimal.Decimal(match[1]), match[2]
    if suffix in _BINARY[1:]:
        return number * decimal.Decimal(1024 ** _BINARY.index(suffix))
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return number.scaleb(int(suffix[1:]))
    return number.scaleb(3 * _DECIMAL_BY_SUFFIX[suffix])


def _binary(value: decimal.Decimal) -> str:
    if abs(value) < 1024:
        mantissa, exponent = _groups(value)
        return f"{mantissa}{_DECIMAL[exponent]}"
    whole, power = int(value.to_integral_value(decimal.ROUND_CEILING)), 0
    while whole % 1024 == 0 and power < len(_BINARY) - 1:
        whole, power = whole // 1024, power + 1
    return f"{whole}{_BINARY[power]}"


def _groups(value: decimal.Decimal) -> tuple[int, int]:
    """(mantissa, exponent) with value = mantissa x 1000^exponent, mantissa not divisible by 1000."""
    if not value:
        return 0, 0
    exponent = -3
    mantissa = int(value.scaleb(9).to_integral_value(decimal.ROUND_UP))
    while mantissa % 1000 == 0 and exponent < 6:
        mantissa, exponent = mantissa // 1000, exponent + 1
    return mantissa, exponent
