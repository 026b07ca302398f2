"""The X-Filter header: which objects of a collection are asked for, and in which order. Pure.

Refused: a filter that is no JSON object, an attribute that the description does not mark as filterable
(400 `Cannot filter on foo`, field `X-Filter`), an unknown operator.
Source: Linode API description, "Filtering and sorting"; recorded replies for the error text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from lab.linode.errors import ApiError, Json, bad_request

Predicate = Callable[[Json], bool]
FIELD = "X-Filter"


def _get(item: Json, attribute: str) -> Json:
    for part in attribute.split("."):
        item = item.get(part) if isinstance(item, dict) else None
    return item


def _equal(value: Json, wanted: Json) -> bool:
    if isinstance(value, list):  # tags: an object has the tag
        return wanted in value
    return bool(value == wanted)


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Json, Json], bool]:
    def compare(value: Json, wanted: Json) -> bool:
        try:
            return test(value, wanted)
        except TypeError:
            return False

    return compare


def _contains(value: Json, wanted: Json) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and str(wanted).casefold() in one.casefold() for one in values)


OPERATORS: dict[str, Callable[[Json, Json], bool]] = {
    "+gt": _compare(lambda a, b: a > b),
    "+gte": _compare(lambda a, b: a >= b),
    "+lt": _compare(lambda a, b: a < b),
    "+lte": _compare(lambda a, b: a <= b),
    "+neq": lambda value, wanted: not _equal(value, wanted),
    "+contains": _contains,
}


def cannot_filter(attribute: str) -> ApiError:
    return bad_request(f"Cannot filter on {attribute}", FIELD)


def _conjunction(tests: Sequence[Predicate]) -> Predicate:
    return lambda item: all(test(item) for test in tests)


def _disjunction(tests: Sequence[Predicate]) -> Predicate:
    return lambda item: any(test(item) for test in tests)


def _operation(name: str, check: Callable[[Json, Json], bool], operand: Json) -> Predicate:
    return lambda item: check(_get(item, name), operand)


def _attribute(name: str, wanted: Json, filterable: frozenset[str]) -> Predicate:
    if name not in filterable:
        raise cannot_filter(name)
    if not isinstance(wanted, dict):
        return lambda item: _equal(_get(item, name), wanted)
    tests: list[Predicate] = []
    for operator, operand in wanted.items():
        check = OPERATORS.get(operator)
        if check is None:
            raise bad_request(f"Invalid operator {operator}", FIELD)
        tests.append(_operation(name, check, operand))
    return _conjunction(tests)


def _compile(node: Json, filterable: frozenset[str]) -> Predicate:
    if not isinstance(node, dict):
        raise bad_request("Invalid filter", FIELD)
    tests: list[Predicate] = []
    for key, value in node.items():
        if key in ("+order_by", "+order"):
            continue
        if key in ("+and", "+or"):
            if not isinstance(value, list) or not value:
                raise bad_request(f"{key} must be a list of filters", FIELD)
            parts = [_compile(part, filterable) for part in value]
            tests.append(_conjunction(parts) if key == "+and" else _disjunction(parts))
        elif key.startswith("+"):
            raise bad_request(f"Invalid operator {key}", FIELD)
        else:
            tests.append(_attribute(key, value, filterable))
    return _conjunction(tests)


def parse(header: str | None) -> dict[str, Json]:
    """The filter as an object; an absent or empty header asks for everything."""
    if header is None or not header.strip():
        return {}
    try:
        node = json.loads(header)
    except ValueError:
        raise bad_request("Invalid JSON", FIELD) from None
    if not isinstance(node, dict):
        raise bad_request("Invalid filter", FIELD)
    return node


def apply(items: Sequence[Json], header: str | None, filterable: frozenset[str]) -> list[Json]:
    """The items that pass the filter, ordered as it asks."""
    node = parse(header)
    wanted = _compile(node, filterable)
    found = [item for item in items if wanted(item)]
    order_by, order = node.get("+order_by"), node.get("+order", "asc")
    if order not in ("asc", "desc"):
        raise bad_request("+order must be asc or desc", FIELD)
    if order_by is not None:
        if order_by not in filterable:
            raise cannot_filter(str(order_by))
        found.sort(key=lambda item: str(_get(item, order_by)), reverse=order == "desc")
        if all(isinstance(_get(item, order_by), int) for item in found):
            found.sort(key=lambda item: int(_get(item, order_by)), reverse=order == "desc")
    return found


def page(items: Sequence[Json], number: int, size: int) -> dict[str, Json]:
    """The envelope of one page; a page past the end does not exist."""
    pages = max(1, -(-len(items) // size))
    if number > pages:
        raise ApiError(404, "Not found")
    start = (number - 1) * size
    return {"data": list(items[start : start + size]), "page": number, "pages": pages, "results": len(items)}
