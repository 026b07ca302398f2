"""Why an image is not pulled, from the registry's and the runtime's words. Pure."""

from __future__ import annotations

from ai_sandbox_operator.api.conditions import Reason

#: Waiting reasons of the kubelet for a container whose image is not there.
WAITING = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)

#: In this order: a registry that limits the rate says so with words of a refusal, and one that hides
#: images from strangers says "not found or no access".
_WORDS: tuple[tuple[Reason, tuple[str, ...]], ...] = (
    (Reason.ImagePullRateLimited, ("toomanyrequests", "429 too many requests", "pull rate limit")),
    (
        Reason.RegistryUnreachable,
        (
            "no such host",
            "i/o timeout",
            "connection refused",
            "tls handshake timeout",
            "x509:",
            "context deadline exceeded",
            "network is unreachable",
            "temporary failure in name resolution",
            "server misbehaving",
        ),
    ),
    (Reason.ImageUnusable, ("no match for platform", "exec format error")),
    (
        Reason.ImagePullUnauthorized,
        (
            "unauthorized",
            "authentication required",
            "insufficient_scope",
            "denied",
            "403 forbidden",
            "no basic auth credentials",
        ),
    ),
    (Reason.ImageNotFound, ("not found", "manifest unknown", "name unknown", "couldn't parse image name")),
    (Reason.DiskFull, ("no space left on device",)),
)
REASONS = frozenset({reason for reason, _ in _WORDS} | {Reason.ImagePullFailed})
#: Waiting and trying again helps, or may help, with these.
_PASSING = frozenset(
    {
        Reason.ImagePullRateLimited,
        Reason.RegistryUnreachable,
        Reason.ImagePullFailed,
        Reason.DiskFull,
    }
)


def cause(waiting_reason: str, message: str) -> tuple[Reason, bool]:
    """The reason, and whether only a person can mend it."""
    if waiting_reason == "InvalidImageName":
        return Reason.ImageNotFound, True
    said = message.lower()
    for reason, words in _WORDS:
        if any(each in said for each in words):
            return reason, reason not in _PASSING
    return Reason.ImagePullFailed, False
