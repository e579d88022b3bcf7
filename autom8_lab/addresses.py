"""The address of a lab on a server: shown without its password."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode

SCHEMES = ("postgresql", "postgres")
SECRETS = {"password", "sslpassword"}


class Address(str):
    """An address as everybody may see it; `secrets` are the driver's settings that nobody may.

    >>> Address.of("postgresql://agent:hidden@db.example/lab?sslmode=require")
    'postgresql://agent@db.example/lab?sslmode=require'
    >>> Address.of("postgresql://agent:hidden@db.example/lab").secrets["password"]
    'hidden'
    """

    secrets: dict[str, str]

    @classmethod
    def of(cls, text: str) -> Address:
        """Return the address that a text names; one that is an address already stays as it is."""
        if isinstance(text, cls):
            return text
        scheme, _, rest = text.partition("://")
        user, password, place = _split(rest)
        place, _, query = place.partition("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        secrets = {name: value for name, value in pairs if name in SECRETS}
        if password is not None:
            secrets["password"] = unquote(password)
        shown = urlencode([pair for pair in pairs if pair[0] not in SECRETS], safe="/,:-_", quote_via=quote)
        address = cls(f"{scheme}://{f'{user}@' if user else ''}{place}{f'?{shown}' if shown else ''}")
        address.secrets = {name: value for name, value in secrets.items() if value}
        return address


def is_address(text: str) -> bool:
    """Whether a text names a lab on a server rather than a file.

    >>> is_address("postgresql://localhost/lab"), is_address("autom8.db")
    (True, False)
    """
    return "://" in text


def is_postgres(text: str) -> bool:
    """Whether a text is the address of a PostgreSQL database."""
    return text.partition("://")[0] in SCHEMES


def _split(rest: str) -> tuple[str, str | None, str]:
    """Return user, password and place. A password may have been written with any sign in it, a second @ too."""
    before = rest.partition("?")[0]
    if "@" in before:
        userinfo, _, place = rest.rpartition("@") if "?" not in rest else _rpartition(rest, len(before))
    elif "@" in rest and re.match(r"[^/@]*:(?!\d*(?:[/?]|$))", rest):  # the ? is one of the password's
        userinfo, _, place = rest.rpartition("@")
    else:
        return "", None, rest
    user, colon, password = userinfo.partition(":")
    return user, password if colon else None, place


def _rpartition(text: str, end: int) -> tuple[str, str, str]:
    at = text.rindex("@", 0, end)
    return text[:at], "@", text[at + 1 :]
