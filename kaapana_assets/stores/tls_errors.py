"""Tells whether a TLS connection failed for good: a certificate that is not trusted now will not be later."""

from __future__ import annotations

import ssl

_SIGNS = ("Fingerprints did not match", "WRONG_VERSION_NUMBER")  # the second: the server does not speak TLS


def fails_for_good(exc: BaseException) -> bool:
    """Whether a certificate was refused or the server does not speak TLS; other failures may be temporary.

    Libraries keep the original error in different ways: as cause, context, argument or reason.
    """
    seen: list[BaseException] = []
    todo: list[object] = [exc]
    while todo:
        each = todo.pop()
        if not isinstance(each, BaseException) or any(each is other for other in seen):
            continue
        texts = [text for text in each.args if isinstance(text, str)]
        if isinstance(each, ssl.SSLCertVerificationError) or any(sign in text for text in texts for sign in _SIGNS):
            return True
        seen.append(each)
        errors = getattr(each, "errors", ())
        todo += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
        todo += errors if isinstance(errors, tuple | list) else ()
    return False
