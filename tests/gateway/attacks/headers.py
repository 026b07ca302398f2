"""Attacks by headers of a request: the key in other places and forms, and claims to be somebody else."""

from __future__ import annotations

from gateway.attacks.case import Case
from gateway.attacks.site import FORMER, FROM_STRANGER, GOOD, HOST, KEY, OFFICE, ask, get
from gateway.attacks.wire import message

K, OLD = KEY.encode(), FORMER.encode()
BAD = b"Authorization: Bearer wrong-key-wrong-key"
MODELS = (b"/v1/models",)

CONTROLS = [
    Case("control: a bearer key", ask(b"Authorization: Bearer " + K), 200, MODELS),
    Case("control: the scheme in small letters", ask(b"authorization: bearer " + K), 200, MODELS),
    Case("control: the other header", ask(b"X-API-Key: " + K), 200, MODELS),
    Case(
        "control: blanks around a value are no part of it", ask(b"X-API-Key: \t " + K + b" \t"), 200, MODELS
    ),
    Case(
        "control: one good line of the other header is enough",
        ask(b"X-API-Key: x", b"X-API-Key: " + K),
        200,
        MODELS,
    ),
    Case(
        "control: a value folded after the scheme is one value",
        ask(b"Authorization: Bearer", b" " + K),
        200,
        MODELS,
    ),
    Case("control: a line feed ends a line", ask(b"X-Note: a\n" + GOOD), 200, MODELS),
    Case("control: the good key in one header is enough", ask(BAD, b"X-API-Key: " + K), 200, MODELS),
]

KEYS = [
    Case("no key", ask(), 401),
    Case("a wrong key", ask(BAD), 401),
    Case("a good key, then a wrong one", ask(GOOD, BAD), 401),
    Case("a wrong key, then a good one", ask(BAD, GOOD), 401),
    Case("the good key twice", ask(GOOD, GOOD), 401),
    Case("two keys in one value", ask(b"Authorization: Bearer wrong, Bearer " + K), 401),
    Case("two keys in one value, the good one first", ask(GOOD + b", Bearer wrong"), 401),
    Case("a key with a letter behind it in the other header", ask(b"X-API-Key: " + K + b"x"), 401),
    Case("a key with a letter before it in the other header", ask(b"X-API-Key: x" + K), 401),
    Case("a key in capitals in the other header", ask(b"X-API-Key: " + K.upper()), 401),
    Case("two keys in one value of the other header", ask(b"X-API-Key: " + K + b",x"), 401),
    Case("an empty key before a comma", ask(b"Authorization: Bearer ," + K), 401),
    Case("the key without a scheme", ask(b"Authorization: " + K), 401),
    Case("the scheme without a key", ask(b"Authorization: Bearer"), 401),
    Case("the key in the scheme Basic", ask(b"Authorization: Basic " + K), 401),
    Case("the key in the scheme Token", ask(b"Authorization: Token " + K), 401),
    Case("the key in a scheme that ends like Bearer", ask(b"Authorization: XBearer " + K), 401),
    Case("the scheme in the other header", ask(b"X-API-Key: Bearer " + K), 401),
    Case("two blanks after the scheme", ask(b"Authorization: Bearer  " + K), 401),
    Case("a tab after the scheme", ask(b"Authorization: Bearer\t" + K), 401),
    Case("no blank after the scheme", ask(b"Authorization: Bearer" + K), 401),
    Case("a colon after the scheme", ask(b"Authorization: Bearer: " + K), 401),
    Case("the key in quotes", ask(b'Authorization: Bearer "' + K + b'"'), 401),
    Case("a key that lacks its last letter", ask(b"Authorization: Bearer " + K[:-1]), 401),
    Case("a key that lacks its first letter", ask(b"Authorization: Bearer " + K[1:]), 401),
    Case("a key with a letter behind it", ask(GOOD + b"x"), 401),
    Case("a key with a letter before it", ask(b"Authorization: Bearer x" + K), 401),
    Case("the key twice in one value", ask(GOOD + K), 401),
    Case("the key with another word behind it", ask(GOOD + b" x"), 401),
    Case("a key in capitals", ask(b"Authorization: Bearer " + K.upper()), 401),
    Case("a key in small letters", ask(b"Authorization: Bearer " + K.lower()), 401),
    Case(
        "a key with another letter for its dot", ask(b"Authorization: Bearer " + K.replace(b".", b"x")), 401
    ),
    Case(
        "a key with its plus read as a repetition",
        ask(b"Authorization: Bearer " + K.replace(b"a+", b"aaa")),
        401,
    ),
    Case("a pattern that matches every key", ask(b"Authorization: Bearer .*"), 401),
    Case("a pattern in the other header", ask(b"X-API-Key: .*"), 401),
    Case("a key that was taken away", ask(b"Authorization: Bearer " + OLD), 401),
    Case("a key that was taken away in the other header", ask(b"X-API-Key: " + OLD), 401),
    Case("the key of the engine", ask(b"Authorization: Bearer " + b"e" * 40), 401),
    Case("the name of a key", ask(b"Authorization: Bearer alice"), 401),
    Case("the key with percent escapes", ask(b"Authorization: Bearer " + K.replace(b"-", b"%2d")), 401),
    Case("the key with a byte beyond ASCII", ask(GOOD + b"\xc3\xa9"), 401),
    Case("the key with a blank beyond ASCII before it", ask(b"Authorization: Bearer\xc2\xa0" + K), 401),
    Case("the key with a null byte", ask(GOOD + b"\x00"), 400),
    Case("the key with a null byte inside", ask(b"Authorization: Bearer " + K[:5] + b"\x00" + K[5:]), 400),
    Case(
        "the key in the query",
        message(b"GET /v1/models?api_key=" + K + b"&key=" + K + b" HTTP/1.1", HOST),
        401,
    ),
    Case("the key in a cookie", ask(b"Cookie: api_key=" + K + b"; Authorization=Bearer " + K), 401),
    Case(
        "the key as user in an absolute target",
        message(b"GET http://x:" + K + b"@demo/v1/models HTTP/1.1", HOST),
        400,
    ),
    Case(
        "the key in a body",
        message(
            b"POST /v1/completions HTTP/1.1",
            HOST,
            b"Content-Type: application/x-www-form-urlencoded",
            b"Content-Length: 42",
            body=b"api_key=" + K,
        ),
        401,
    ),
    Case("the key in a header of a proxy", ask(b"Proxy-Authorization: Bearer " + K), 401),
    Case("the key in a header of another gateway", ask(b"X-Forwarded-Authorization: Bearer " + K), 401),
    Case("the key in an Azure header", ask(b"api-key: " + K), 401),
    Case(
        "the key in the subprotocol of a socket",
        ask(b"Sec-WebSocket-Protocol: openai-insecure-api-key." + K),
        401,
    ),
    Case("a header name with an underscore", ask(b"X_API_Key: " + K), 400),
    Case("a header name with an underscore beside a good key", get(b"/v1/models", b"x_api_key: x"), 400),
    Case("a header name with a blank before the colon", ask(b"Authorization : Bearer " + K), 400),
    Case("a header name with a tab before the colon", ask(b"Authorization\t: Bearer " + K), 400),
    Case("a header name with a null byte", ask(b"Authoriz\x00ation: Bearer " + K), 400),
    Case("a header name beyond ASCII", ask(b"Authorization\xc3\xa9: Bearer " + K), 400),
    Case("a header name that is empty", ask(b": Bearer " + K), 400),
    Case("a header of HTTP/2 in HTTP/1.1", ask(b":authorization: Bearer " + K), 400),
    Case("a key folded in the middle", ask(b"Authorization: Bearer " + K[:9], b"\t" + K[9:]), 401),
    Case(
        "a folded line of another header that looks like a key",
        ask(b"X-Note: a", b" Authorization: Bearer " + K),
        401,
    ),
    Case("a key after the end of the headers", ask() + GOOD + b"\r\n\r\n", (401, 400)),
]

SPOOFS = [
    Case(
        f"a stranger behind the balancer who sends {words}",
        get(b"/v1/models", header),
        403,
        prefix=FROM_STRANGER,
    )
    for words, header in (
        ("X-Forwarded-For", b"X-Forwarded-For: " + OFFICE.encode()),
        ("X-Forwarded-For with many hops", b"X-Forwarded-For: 203.0.113.9, 203.0.113.9, 127.0.0.4"),
        ("X-Forwarded-For of the loopback address", b"X-Forwarded-For: 127.0.0.1"),
        ("Forwarded", b"Forwarded: for=203.0.113.9;by=127.0.0.4"),
        ("X-Real-IP", b"X-Real-IP: 203.0.113.9"),
        ("True-Client-IP", b"True-Client-IP: 203.0.113.9"),
        ("CF-Connecting-IP", b"CF-Connecting-IP: 203.0.113.9"),
        ("X-Client-IP", b"X-Client-IP: 203.0.113.9"),
        ("X-Cluster-Client-IP", b"X-Cluster-Client-IP: 203.0.113.9"),
        ("X-Envoy-External-Address", b"X-Envoy-External-Address: 203.0.113.9"),
        ("X-Envoy-Internal", b"X-Envoy-Internal: true"),
        ("X-Envoy-Original-Dst-Host", b"X-Envoy-Original-Dst-Host: 203.0.113.9:80"),
        ("X-Forwarded-Client-Cert", b'X-Forwarded-Client-Cert: By=x;Hash=0;Subject="CN=admin"'),
        ("Via", b"Via: 1.1 203.0.113.9"),
        ("a line of the PROXY protocol as a header", b"PROXY: TCP4 203.0.113.9 192.0.2.80 50000 443"),
    )
]

REWRITES = [
    Case(
        f"an allowed path to a keyless endpoint by {name}",
        get(b"/v1/models", name.encode() + b": " + value),
        200,
        MODELS,
    )
    for name, value in (
        ("X-Original-URL", b"/invocations"),
        ("X-Rewrite-URL", b"/invocations"),
        ("X-Forwarded-Prefix", b"/invocations"),
        ("X-Envoy-Original-Path", b"/invocations"),
        ("X-Envoy-Decorator-Operation", b"/invocations"),
        ("X-Envoy-Upstream-Rq-Timeout-Ms", b"1"),
        ("X-Envoy-Upstream-Alt-Stat-Name", b"x"),
        ("X-Envoy-Retry-On", b"5xx"),
        ("X-HTTP-Method-Override", b"DELETE"),
    )
]

HIDDEN_REWRITES = [
    Case(
        f"a keyless endpoint that pretends to be allowed by {name}",
        get(b"/invocations", name.encode() + b": /v1/models"),
        404,
    )
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Envoy-Original-Path", "X-Forwarded-Path", "Location")
]

CASES = [*CONTROLS, *KEYS, *SPOOFS, *REWRITES, *HIDDEN_REWRITES]
