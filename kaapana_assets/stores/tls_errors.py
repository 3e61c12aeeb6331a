"""Whether a TLS connection failed for good: a certificate that is not trusted stays so."""

from __future__ import annotations

import ssl

_SIGNS = ("Fingerprints did not match", "WRONG_VERSION_NUMBER")  # the last: it does not speak TLS


def fails_for_good(exc: BaseException) -> bool:
    """Whether a certificate was refused, or there is no TLS; other failures (a server that goes away) may pass.

    Libraries keep the first error in different places: as cause, context, argument or reason.
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
