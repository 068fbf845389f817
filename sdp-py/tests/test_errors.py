"""The exception classes."""

from __future__ import annotations

import pickle

from sdp import _sdp, errors


def test_every_code_has_a_class_of_its_own() -> None:
    server = {code: status for code, status, _ in _sdp.server_codes()}
    codes = {**server, **dict.fromkeys(_sdp.client_codes())}
    assert errors.BY_CODE.keys() == codes.keys()
    assert len(set(errors.BY_CODE.values())) == len(codes)
    for code, kind in errors.BY_CODE.items():
        error = kind("why")
        assert isinstance(error, errors.SdpError)
        assert (error.code, error.status, str(error)) == (code, codes[code], "why")
        assert getattr(errors, kind.__name__) is kind


def test_an_error_says_everything_and_travels_between_processes() -> None:
    text = (
        '{"code":"port-taken","status":409,"detail":"port 9 is taken","cure":"take another",'
        '"field":"host_port","holder":"pay/eredar","retryable":false,"retry_after":null}'
    )
    error = errors._from_native(text)
    assert type(error) is errors.PortTaken
    for it in [error, pickle.loads(pickle.dumps(error))]:
        assert (type(it), it.holder, it.field, it.status) == (errors.PortTaken, "pay/eredar", "host_port", 409)
        assert str(it) == "port 9 is taken (take another)"


def test_a_code_of_a_newer_server_is_an_error_all_the_same() -> None:
    error = errors._from_native('{"code":"flux-lost","status":500,"detail":"no flux"}')
    assert (type(error), error.code) == (errors.SdpError, "flux-lost")
