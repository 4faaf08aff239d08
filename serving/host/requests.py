"""A request of a controller, as the words of one SSH command; nothing else is ever run.

    lockgate NONCE VERB [ARGUMENT ...] [--fence N] [--rollback] [--timeout SECONDS] [--limit KIB_S]

Every word is checked by rule, and no word is a path, a config or a command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from conf.errors import ConfigError
from conf.names import check_name
from serving.host.errors import HostRefusal

MAX_TIMEOUT_S = 3600
MAX_LINES = 1000
MAX_INSTANCES = 64
"""Of one model on any host; a host's own limit may be lower."""
NONCE = re.compile(r"[0-9a-f]{16,64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
NONE = "none"
ALL = "all"
PACKAGED = "packaged"


def _model(word: str) -> str:
    try:
        return check_name("model", word)
    except ConfigError as error:
        raise HostRefusal("request", str(error)) from None


def _version(word: str) -> int:
    if not _NUMBER.fullmatch(word):
        raise HostRefusal("request", f"{word!a} is not a number of a version, such as 3")
    return int(word)


def _versions(word: str) -> tuple[int, ...]:
    if word == NONE:
        return ()
    return tuple(sorted({_version(part) for part in word.split(",")}))


def _count(word: str) -> int:
    return 0 if word == "0" else _version(word)


def _lines(word: str) -> int:
    number = _version(word)
    if number > MAX_LINES:
        raise HostRefusal("request", f"{number} lines are too many: {MAX_LINES} at most")
    return number


def _instances(word: str) -> int | None:
    number = None if word == PACKAGED else _version(word)
    if number is not None and number > MAX_INSTANCES:
        raise HostRefusal("request", f"{number} instances are too many: {MAX_INSTANCES} at most")
    return number


def _digest(word: str) -> str:
    if not _DIGEST.fullmatch(word):
        raise HostRefusal("request", f"{word!a} is not the sha256 of a manifest, in hex")
    return word


def _host(word: str) -> str:
    try:
        return check_name("host", word)
    except ConfigError as error:
        raise HostRefusal("request", str(error)) from None


def _model_or_all(word: str) -> str | None:
    return None if word == ALL else _model(word)


Rule = Callable[[str], object]


@dataclass(frozen=True)
class Verb:
    """A verb's arguments by their rules, whether it changes the host, and whether it waits its
    turn: one that is not `alone` answers while a long one is at work."""

    rules: tuple[Rule, ...]
    changes: bool = True
    alone: bool = True


VERBS: dict[str, Verb] = {
    "facts": Verb((_model_or_all,), changes=False, alone=False),
    "memory": Verb((), changes=False, alone=False),
    "probe": Verb((_model, _version), changes=False, alone=False),
    "verify": Verb((_model_or_all,), changes=False),
    "prepare": Verb((_model, _version)),
    "missing": Verb((_model, _version)),
    "offer": Verb((_model, _version, _host)),
    "fetch": Verb((_model, _version, _digest, _host)),
    "accept": Verb((_model, _version)),
    "install": Verb((_model, _version)),
    "serve": Verb((_model, _versions)),
    "persist": Verb((_model, _versions)),
    "scale": Verb((_model, _instances)),
    "withdraw": Verb((_model,)),
    "restart": Verb(()),
    "proven": Verb((_model, _version)),
    "gc": Verb(()),
    "logs": Verb((_lines,), changes=False, alone=False),
    "prune": Verb((_model, _versions, _count)),
    "revoke": Verb((_digest,)),
}


@dataclass(frozen=True)
class HostRequest:
    """A checked request. `timeout_s` bounds it on the host, whatever becomes of the connection.

    `limit_kib_s` bounds what it may receive from another host in a second; 0 is no bound.
    """

    verb: str
    arguments: tuple[object, ...]
    fence: int = 0
    rollback: bool = False
    timeout_s: int = 60
    limit_kib_s: int = 0

    @property
    def text(self) -> str:
        """The verb and its arguments, for people."""
        shown = (",".join(map(str, one)) if isinstance(one, tuple) else str(one or ALL)
                 for one in self.arguments)  # fmt: skip
        return " ".join((self.verb, *shown))

    @property
    def changes(self) -> bool:
        """True when the request may change the host."""
        return VERBS[self.verb].changes

    @property
    def alone(self) -> bool:
        """True when the request waits until no other is at work, and holds others up."""
        return VERBS[self.verb].alone


_NUMBERS = {"--fence": "fence", "--timeout": "timeout_s", "--limit": "limit_kib_s"}


def nonce_of(command: str) -> str:
    """The nonce of a command, "" where it has none: then nothing is answered."""
    words = command.split(" ")
    framed = len(words) > 1 and words[0] == "lockgate" and NONCE.fullmatch(words[1])
    return words[1] if framed else ""


def parse_request(command: str) -> HostRequest:
    """The request in an SSH command. Raises HostRefusal("request") for anything else."""
    words = command.split(" ")[2:]
    options: dict[str, int | bool] = {}
    plain: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--rollback":
            options["rollback"] = True
        elif word in _NUMBERS and words:
            options[_NUMBERS[word]] = _count(words.pop(0))
        elif word.startswith("-"):
            raise HostRefusal("request", f"{word!a} is no option of this host")
        else:
            plain.append(word)
    verb = VERBS.get(plain[0]) if plain else None
    if verb is None:
        raise HostRefusal("request", f"this host does {', '.join(VERBS)}, and nothing else")
    if len(plain) - 1 != len(verb.rules):
        raise HostRefusal("request", f"{plain[0]} takes {len(verb.rules)} arguments")
    arguments = tuple(rule(word) for rule, word in zip(verb.rules, plain[1:], strict=True))
    request = HostRequest(plain[0], arguments, **options)  # type: ignore[arg-type]
    if not 1 <= request.timeout_s <= MAX_TIMEOUT_S:
        raise HostRefusal("request", f"--timeout is 1 to {MAX_TIMEOUT_S} seconds")
    return request
