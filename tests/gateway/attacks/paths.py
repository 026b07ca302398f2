"""Attacks by the path, the target form and the method."""

from __future__ import annotations

from gateway.attacks.case import Case
from gateway.attacks.site import GOOD, HOST, ask, get
from gateway.attacks.wire import message

#: Endpoints of vLLM that answer without a key, and those that its security guide lists as open.
KEYLESS = [
    "/invocations",
    "/ping",
    "/version",
    "/tokenize",
    "/detokenize",
    "/load",
    "/metrics",
    "/health",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/collective_rpc",
    "/pause",
    "/resume",
    "/update_weights",
    "/server_info",
    "/start_profile",
    "/stop_profile",
    "/reset_prefix_cache",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/generative_scoring",
    "/pooling",
    "/classify",
    "/score",
    "/rerank",
    "/v1/score",
    "/v1/rerank",
    "/v2/rerank",
    "/inference/v1/generate",
    "/cohere/v2/chat",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/audio/transcriptions",
    "/v1/realtime",
    "/v1/chat/completions/render",
    "/v1/completions/render",
    "/v1/responses/resp_1/cancel",
    "/v1/messages/count_tokens",
]

CONTROLS = [
    Case("control: the list of models", get(b"/v1/models"), 200, (b"/v1/models",)),
    Case("control: a doubled slash is one", get(b"/v1//models"), 200, (b"/v1/models",)),
    Case("control: an escaped letter is a letter", get(b"/v1/%6dodels"), 200, (b"/v1/models",)),
    Case("control: dot segments are resolved first", get(b"/x/../v1/./models"), 200, (b"/v1/models",)),
    Case(
        "control: a parameter on a dot segment is dropped", get(b"/x/..;a/v1/models"), 200, (b"/v1/models",)
    ),
    Case("control: a query goes along", get(b"/v1/models?a=/../x"), 200, (b"/v1/models?a=/../x",)),
    Case("control: an absolute target", get(b"http://demo/v1/models"), 200, (b"/v1/models",)),
]

PATHS = [
    Case("a dot segment after the version leads out of the API", get(b"/v1/../invocations"), 404),
    Case("dot segments after an allowed path lead out", get(b"/v1/models/../../invocations"), 404),
    Case("dot segments above the root end at the root", get(b"/../../../invocations"), 404),
    Case("a doubled slash before a keyless endpoint", get(b"//invocations"), 404),
    Case("many slashes before a keyless endpoint", get(b"/////invocations"), 404),
    Case("escaped dots are dots", get(b"/v1/%2e%2e/invocations"), 404),
    Case("half escaped dots are dots", get(b"/v1/.%2e/invocations"), 404),
    Case("capital escapes of dots are dots", get(b"/v1/%2E%2E/invocations"), 404),
    Case("doubly escaped dots stay a name", get(b"/v1/%252e%252e/invocations"), 404),
    Case("an escaped slash hides a dot segment", get(b"/v1/models%2f..%2f..%2finvocations"), 400),
    Case("an escaped slash in capitals", get(b"/v1/models%2F..%2F..%2Finvocations"), 400),
    Case("an escaped slash inside an allowed path", get(b"/v1%2fmodels"), 400),
    Case("an escaped backslash", get(b"/v1%5c..%5cinvocations"), 400),
    Case("a backslash as a separator", get(b"/v1\\..\\invocations"), 404),
    Case("a backslash instead of a slash in an allowed path", get(b"/v1\\models\\..\\..\\invocations"), 404),
    Case("a doubly escaped slash stays a name", get(b"/v1/models%252f..%252finvocations"), 404),
    Case("a path parameter on a dot segment", get(b"/v1/..;/invocations"), 404),
    Case("a path parameter after an allowed path", get(b"/v1/models;a=b"), 404),
    Case("a path parameter and a way out", get(b"/v1/models;/../../invocations"), 404),
    Case("a path parameter with a dot segment in it", get(b"/v1/models/..;x=/../invocations"), 404),
    Case("an escaped semicolon on a dot segment", get(b"/v1/..%3b/invocations"), 404),
    Case("a capital version", get(b"/V1/models"), 404),
    Case("a capital resource", get(b"/v1/Models"), 404),
    Case("a keyless endpoint in capitals", get(b"/INVOCATIONS"), 404),
    Case("a trailing slash on an allowed path", get(b"/v1/models/"), 404),
    Case("a trailing dot on an allowed path", get(b"/v1/models."), 404),
    Case("a trailing escaped space", get(b"/v1/models%20"), 404),
    Case("a trailing escaped line feed", get(b"/v1/models%0a"), 404),
    Case("a trailing escaped carriage return and line feed", get(b"/v1/models%0d%0ax:y"), 404),
    Case("a trailing dot segment leaves a slash", get(b"/v1/models/."), 404),
    Case("a child of an allowed path", get(b"/v1/models/mistral"), 404),
    Case("a prefix of an allowed path", get(b"/v1/model"), 404),
    Case("an allowed path inside another", get(b"/x/v1/models"), 404),
    Case("an allowed path after an escaped question mark", get(b"/invocations%3f/v1/models"), 404),
    Case("an allowed path in the query of another", get(b"/invocations?/v1/models"), 404),
    Case("an allowed path after a second question mark", get(b"/invocations??/../v1/models"), 404),
    Case("an escaped fragment mark", get(b"/invocations%23/../v1/models%23"), 404),
    Case("a fragment after an allowed path", get(b"/v1/models#/../../invocations"), 400),
    Case("a fragment before an allowed path", get(b"/invocations#/../v1/models"), 400),
    Case("an escaped null byte after an allowed path", get(b"/v1/models%00"), 400),
    Case("an escaped null byte before a way out", get(b"/v1/models%00/../../invocations"), 400),
    Case("a null byte in the path", get(b"/v1/models\x00"), 400),
    Case("a control byte in the path", get(b"/v1/models\x01"), 400),
    Case("a tab in the request line", get(b"/v1/models\tx"), 400),
    Case("a space in the path", get(b"/v1/models /x"), 400),
    Case("a broken escape", get(b"/v1/%zz/models"), 404),
    Case("an escape cut off at the end", get(b"/v1/models%2"), 404),
    Case("an overlong UTF-8 dot segment", get(b"/v1/%c0%ae%c0%ae/invocations"), 404),
    Case("an overlong UTF-8 slash", get(b"/v1%c0%afmodels"), 404),
    Case("a fullwidth dot segment", get("/v1/．．/invocations".encode()), 400),
    Case("a fullwidth slash escaped", get(b"/v1%ef%bc%8fmodels"), 404),
    Case("a letter with the look of another", get("/v1/mоdels".encode()), 400),
    Case("a soft hyphen escaped in an allowed path", get(b"/v1/mod%c2%adels"), 404),
    Case("raw bytes that are no UTF-8", get(b"/v1/models\xff"), 400),
    Case("a microsoft unicode escape", get(b"/v1/%u002e%u002e/invocations"), 404),
    Case("a path of 16 KiB", get(b"/v1/models/" + b"a" * 16384), 404),
    Case("a path of 16 KiB of dot segments to a keyless endpoint", get(b"/v1/.." * 2700 + b"/ping"), 404),
    Case("a path longer than all headers may be", get(b"/v1/models?" + b"a" * 40000), 431),
    Case("the root", get(b"/"), 404),
    Case("no path at all", get(b""), 400),
    Case("a relative path", get(b"v1/models"), 400),
    Case("a query without a path", get(b"?/v1/models"), 400),
    Case("an absolute target of a keyless endpoint", get(b"http://demo/invocations"), 404),
    Case("an absolute target with a way out", get(b"http://demo/v1/../invocations"), 404),
    Case("an absolute target without a path", get(b"http://demo"), 404),
    Case("an absolute target with an allowed path as its user", get(b"http://v1/models@demo/ping"), 404),
    Case("an absolute target of an unknown scheme", get(b"file:///v1/models"), 400),
    Case("an absolute target with a backslash", get(b"http://demo\\v1/../invocations"), 400),
    Case("a target with an authority only", get(b"//demo/v1/models"), 404),
    Case("the asterisk target", message(b"OPTIONS * HTTP/1.1", HOST, GOOD), 404),
    Case("the asterisk target with GET", get(b"*"), 400),
]

METHODS = [
    Case(
        "control: POST",
        message(b"POST /v1/completions HTTP/1.1", HOST, GOOD, b"Content-Length: 2", body=b"{}"),
        200,
        (b"/v1/completions",),
    ),
    Case("CONNECT to an authority", message(b"CONNECT demo:8000 HTTP/1.1", HOST, GOOD), 403),
    Case(
        "CONNECT to the engine by its address", message(b"CONNECT 127.0.0.1:8000 HTTP/1.1", HOST, GOOD), 403
    ),
    Case("CONNECT with an allowed path", message(b"CONNECT /v1/models HTTP/1.1", HOST, GOOD), 400),
    Case("CONNECT without a key", message(b"CONNECT demo:8000 HTTP/1.1", HOST), 403),
    Case("TRACE without a key", message(b"TRACE /v1/models HTTP/1.1", HOST), 405),
    Case("TRACE of a keyless endpoint", message(b"TRACE /invocations HTTP/1.1", HOST, GOOD), 404),
    Case(
        "OPTIONS without a key",
        message(
            b"OPTIONS /v1/models HTTP/1.1", HOST, b"Origin: https://x", b"Access-Control-Request-Method: POST"
        ),
        405,
    ),
    Case("HEAD without a key", message(b"HEAD /v1/models HTTP/1.1", HOST), 401),
    Case("HEAD of a keyless endpoint", message(b"HEAD /metrics HTTP/1.1", HOST, GOOD), 404),
    Case(
        "POST to inference without a key",
        message(b"POST /invocations HTTP/1.1", HOST, b"Content-Length: 2", body=b"{}"),
        404,
    ),
    Case("DELETE without a key", message(b"DELETE /v1/models HTTP/1.1", HOST), 405),
    Case("PROPFIND without a key", message(b"PROPFIND /v1/models HTTP/1.1", HOST), 405),
    Case("TRACE with a key", message(b"TRACE /v1/models HTTP/1.1", HOST, GOOD), 405),
    Case("OPTIONS with a key", message(b"OPTIONS /v1/models HTTP/1.1", HOST, GOOD), 405),
    Case("DELETE with a key", message(b"DELETE /v1/responses HTTP/1.1", HOST, GOOD), 405),
    Case("PUT with a key", message(b"PUT /v1/models HTTP/1.1", HOST, GOOD, b"Content-Length: 0"), 405),
    Case("a method that nobody knows", message(b"FROBNICATE /v1/models HTTP/1.1", HOST, GOOD), 400),
    Case("a method in small letters", message(b"get /v1/models HTTP/1.1", HOST, GOOD), 400),
    Case("a method with a null byte", message(b"GE\x00T /v1/models HTTP/1.1", HOST, GOOD), 400),
    Case("an empty method", message(b" /v1/models HTTP/1.1", HOST, GOOD), 400),
    Case("a method override to a keyless endpoint", ask(b"X-HTTP-Method-Override: POST"), 401),
]

ENDPOINTS = [
    Case(
        f"{path} is hidden from a client {words}",
        message(b"POST " + path.encode() + b" HTTP/1.1", HOST, *key, b"Content-Length: 2", body=b"{}"),
        404,
    )
    for path in KEYLESS
    for words, key in (("with a key", (GOOD,)), ("without a key", ()))
]


CASES = [*CONTROLS, *PATHS, *METHODS, *ENDPOINTS]
