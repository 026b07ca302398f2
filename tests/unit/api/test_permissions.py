"""The table of rights holds what the code asks for, and nothing that a reviewer would ask about."""

from __future__ import annotations

from ai_sandbox_operator.api import kinds, permissions


def verbs(kind: kinds.Kind, subresource: str = "") -> set[str]:
    return {
        verb
        for permission in permissions.PERMISSIONS
        if (permission.kind, permission.subresource) == (kind, subresource)
        for verb in permission.verbs
    }


def test_every_kind_of_the_operator_has_rights_and_no_other_kind_has() -> None:
    assert {permission.kind for permission in permissions.PERMISSIONS} == set(kinds.BY_NAME.values())


def test_what_is_watched_may_be_listed_and_watched() -> None:
    for kind in kinds.WATCHED:
        assert {"list", "watch"} <= verbs(kind), kind


def test_children_may_be_made_and_changed_and_volumes_are_never_deleted() -> None:
    for kind in kinds.CHILDREN:
        assert {"get", "create", "patch"} <= verbs(kind), kind
    assert "delete" not in verbs(kinds.PVC)


def test_i3_a_sandbox_is_neither_created_nor_replaced_nor_deleted() -> None:
    assert verbs(kinds.SANDBOX) == {"get", "list", "watch", "patch"}
    assert verbs(kinds.SANDBOX, "status") == {"patch"}


def test_there_is_no_wildcard_and_no_right_twice() -> None:
    rights = [
        (permission.kind.group, permission.resource, verb, permission.names)
        for permission in permissions.PERMISSIONS
        for verb in permission.verbs
    ]
    assert len(rights) == len(set(rights))
    assert not any("*" in part for right in rights for part in right[:3])


def test_what_is_outside_the_sandboxes_namespaces_is_read_only_and_holds_no_secret() -> None:
    for permission in permissions.of("cluster"):
        assert set(permission.verbs) <= {"get", "list"}
        assert permission.kind in (kinds.NAMESPACE, kinds.NODE)
    assert {permission.kind for permission in permissions.of("own")} == {kinds.LEASE}


def test_every_right_says_why_in_a_sentence() -> None:
    for permission in permissions.PERMISSIONS:
        assert permission.why.endswith(".")
        assert permission.unobserved <= set(permission.verbs)
