"""Which HTTP status ClickHouse gives an error code; tests and clients rely on both."""

from __future__ import annotations

_CODES_BY_STATUS: dict[int, tuple[int, ...]] = {
    401: (194,),  # a password is required
    403: (192, 193, 497, 516),  # unknown user, wrong password, access denied, authentication failed
    # arguments, parsing, syntax, types
    400: (6, 8, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 117, 167, 168, 223, 321, 376, 427, 675, 676),
    # unknown function, identifier, type, storage, table, aggregate, format, database, setting
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336, 511),
    408: (159,),  # the query took longer than max_execution_time
    411: (381,),
    501: (48,),
    503: (76, 209, 439),
}
_STATUS_BY_CODE = {code: status for status, codes in _CODES_BY_STATUS.items() for code in codes}


def http_status(code: int) -> int:
    """500 for everything else, readonly (164), too many parts (252) and memory (241) included."""
    return _STATUS_BY_CODE.get(code, 500)
