"""Leaves secrets, and on demand names, out of what isobench writes and prints.

Texts are redacted where they leave: in the documents, records and logs of a run, in exports, and on
the terminal. No code before that has to know which of its texts hold a secret.

What counts as a secret: a user name with a password in a URL, values of options, variables and keys
that are called like a secret (`--password X`, `TOKEN=x`, "password": "x"), headers that authorize,
private keys, tokens of well-known forms, and every value that an environment variable of this
process marks as a secret in one of these ways, wherever it stands.
"""

import contextlib
import os
import pwd
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

MARK: Final = "***"
"""What stands in place of what is left out."""
_MARKED_WORD: Final = (
    r"(?:passw(?:or)?d|pass|sshpass|passphrase|secrets?|tokens?|credentials?|api[_-]?keys?|auth"
    r"|access[_-]?keys?|secret[_-]?keys?|private[_-]?keys?|authorization|cookie|session[_-]?key)"
)
# A word of a name, as in DB_PASSWORD or --registry-token, and not a part of one, as in "authors".
# PWD itself is the working directory; MYSQL_PWD is a password, and so is PGPASSWORD.
_NAMED: Final = (
    rf"(?:(?:[A-Za-z0-9]+[_.-])*{_MARKED_WORD}|[A-Za-z0-9]+_pwd"
    r"|[A-Za-z0-9]*(?:password|passwd|passphrase|token|secret))"
)
# A name that ends otherwise, as token_file, says where the secret is.
_NAME: Final = re.compile(_NAMED, re.IGNORECASE)
_QUOTED: Final = r"\"(?:[^\"\\]|\\.)*\"|'[^']*'"
_VALUE: Final = rf"(?:{_QUOTED}|[^\s\"',;&|<>]+)"

# Nearly all texts hold nothing of this, and are searched once only.
_HINT: Final = re.compile(
    r"@|pass|pwd|secret|token|credential|key|auth|cookie|-u|sig|akia|asia|gh[opsur]_|eyj|xox|glpat",
    re.IGNORECASE,
)
# Coordinates and times, as in the pages of long histories: megabytes that no rule needs to search.
_NUMBERS: Final = re.compile(r"(?<=[,\s])((?:-?[0-9.]{1,24}[,\s]+){50,})")
_LONG: Final = 100_000
_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (
        re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL),
        MARK,
    ),
    # A path has one slash where the URL had two. The user name alone may be a token, as in
    # https://TOKEN@host; SSH's never is one. The password may hold an @ that is not escaped: the
    # last one of the authority ends it.
    (
        re.compile(r"(?<![\w+.-])((?!ssh:|sftp:)[A-Za-z][\w+.-]*:/{1,2})[^\s/?#\"'<>]+@"),
        rf"\1{MARK}@",
    ),
    (
        re.compile(r"((?:ssh|sftp):/{1,2})[^\s/?#\"'<>]*:[^\s/?#\"'<>]*@", re.IGNORECASE),
        rf"\1{MARK}@",
    ),
    # As requests and urllib3 print what they could not parse: "user:password@host" alone.
    (re.compile(r"(?<![\w/.@])[\w.%+-]+:[^\s:/@\"'<>]+@(?=[\w\[])"), f"{MARK}@"),
    (
        re.compile(
            r"((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)"
            r"(?:(?:basic|bearer|digest|token|negotiate)\s+)?[^\s\"',;]+",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    (re.compile(r"\b((?:basic|bearer)\s+)[A-Za-z0-9+/_.~=-]{8,}", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(r"((?:set-)?cookie\s*:\s*)[^\r\n\"']+", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(rf"((?<![\w-])--?{_NAMED}(?:=|\s+))(?!-){_VALUE}", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(rf"((?<![\w-])(?:-u|--user|--proxy-user)[=\s]\s*)[^\s:@]+:{_VALUE}"), rf"\1{MARK}"),
    (re.compile(rf"((?<=\s)-u)[A-Za-z][\w.-]*:{_VALUE}"), rf"\1{MARK}"),
    # A header, and the signature of a link.
    (
        re.compile(
            r"(\b(?:x|api|access|auth)-(?:[a-z]+-)*(?:key|token|secret)\s*:\s*)[^\s\"',;]+",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    (re.compile(r"([?&](?:x-amz-)?sig(?:nature)?=)[^\s&\"'<>]+", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(r"(\bsshpass\s+(?:-\w+\s+)*-p\s*)\S+"), rf"\1{MARK}"),
    (re.compile(rf"((?<![\w.-]){_NAMED}[\"']?=)(?!=){_VALUE}", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(rf"([\"']{_NAMED}[\"']\s*[:=]\s*)(?:{_QUOTED})", re.IGNORECASE), rf'\1"{MARK}"'),
    (
        re.compile(
            r"\b(?:gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*)"
        ),
        MARK,
    ),
)
_URL_SECRET: Final = re.compile(r"[A-Za-z][\w+.-]*://[^\s/?#@]*?:([^\s/?#]+)@")
_SHORTEST_VALUE: Final = 6
"""Characters of a value of the environment that is left out wherever it stands. A shorter one would
match by chance."""
_LOGIN_OPTIONS: Final = frozenset({"-u", "--user", "--proxy-user"})
"""Options of curl and others whose value may be "user:password"."""
_NAMING_KEYS: Final = frozenset({"user", "host", "hostname", "login"})
"""Options of targets that name a machine or a user of it."""
_ROOTS_HOME: Final = Path("/root")
# Names that are also words of isobench or of every system: left out of paths alone.
_COMMON: Final = frozenset({
    *("root", "nobody", "user", "users", "host", "localhost", "home", "runner", "test", "guest"),
    *("native", "docker", "podman", "kvm", "qemu", "lxc", "uml", "ssh", "wine", "wasm", "gvisor"),
    *("nspawn", "kubernetes", "distrobox", "bubblewrap", "firejail", "landlock", "namespaces"),
    *("isobench", "linux", "debian", "ubuntu", "admin", "auto", "all", "(none)"),
})  # fmt: skip
_HOME: Final = re.compile(r"((?:^|(?<=[\s\"'=:,(\[]))/(?:var/)?(?:home|Users)/)[^/\s\"',:;)\]]+")

_names: set[str] = set()
_folders: set[str] = set()
_learned: set[str] = set()
_is_leaving_out_names = False


def leave_out_names(more: Iterable[str] = ()) -> None:
    """Leave out names of this host and its users from now on, and also the names in `more`."""
    global _is_leaving_out_names  # noqa: PLW0603 - one decision of the whole process: --redact
    _is_leaving_out_names = True
    found = {os.uname().nodename, *more}
    found |= {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "HOSTNAME")}
    for number in {os.getuid(), os.geteuid()}:
        with contextlib.suppress(KeyError):
            found.add(pwd.getpwuid(number).pw_name)
    found |= {name.partition(".")[0] for name in found}
    _names.update(one for one in found if len(one) > 1 and one.lower() not in _COMMON)
    with contextlib.suppress(RuntimeError):
        home = Path.home()
        if home not in {Path(home.root), _ROOTS_HOME}:
            _folders.add(str(home))


def is_leaving_out_names() -> bool:
    """Return whether names are left out."""
    return _is_leaving_out_names


def reset() -> None:
    """Leave out only secrets again, and forget those that were learned."""
    global _is_leaving_out_names  # noqa: PLW0603 - as above
    _is_leaving_out_names = False
    for kept in (_names, _folders, _learned):
        kept.clear()


def learn(table: Any) -> None:  # noqa: ANN401 - plain data
    """Leave out the secrets in a configuration wherever else they appear, for example in what a
    command of it prints.
    """
    _learned.update(one for one in _secrets_in(table, plain(table)) if len(one) >= _SHORTEST_VALUE)


def _secrets_in(value: Any, redacted: Any) -> Iterator[str]:  # noqa: ANN401 - plain data
    """Yield what was left out of a value."""
    if isinstance(value, str) and isinstance(redacted, str):
        before, mark, after = redacted.partition(MARK)
        if mark and MARK not in after and value.startswith(before) and value.endswith(after):
            found = value[len(before) : len(value) - len(after)].strip("\"'")
            # Of "user:password", the password alone is a secret.
            yield found.rpartition(":")[2]
    elif isinstance(value, Mapping) and isinstance(redacted, Mapping):
        for key, each in value.items():
            yield from _secrets_in(each, redacted[key])
    elif isinstance(value, list | tuple) and len(value) == len(redacted):
        for each, other in zip(value, redacted, strict=True):
            yield from _secrets_in(each, other)


def names_in(tables: Any) -> Iterator[str]:  # noqa: ANN401 - plain data
    """Yield the names of machines and users in the tables of targets."""
    if isinstance(tables, Mapping):
        for key, value in tables.items():
            if key in _NAMING_KEYS and isinstance(value, str):
                yield value
            yield from names_in(value)


def is_secret_name(name: str) -> bool:
    """Return whether a value under this name is a secret: "password", "DB_PASSWORD"."""
    return _NAME.fullmatch(name) is not None


def text(found: str) -> str:
    """Return a text without secrets, and without names where these are left out."""
    return _Redactor().text(found)


def of_bytes(found: bytes) -> bytes:
    """Return the output of a program without secrets. What is no UTF-8 stays as it is."""
    return text(found.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def words(argv: Iterable[str]) -> list[str]:
    """Return a command line without secrets; `--password X` may be two words."""
    return _Redactor().words(argv)


def plain(value: Any) -> Any:  # noqa: ANN401 - plain data
    """Return plain data (of TOML or JSON) without secrets. Keys stay as they are."""
    return _Redactor().plain(value)


def has_mark(value: Any) -> bool:  # noqa: ANN401 - as above
    """Return whether something was left out of plain data."""
    if isinstance(value, str):
        return MARK in value
    if isinstance(value, Mapping):
        return any(map(has_mark, value.values()))
    return isinstance(value, list | tuple) and any(map(has_mark, value))


class _Redactor:
    """The secrets and names that are known at one moment."""

    def __init__(self) -> None:
        # Read each time: variables change within a process, as they do in tests.
        known = {one for one in _values_of_environment() if len(one) >= _SHORTEST_VALUE}
        self._values = sorted(known | _learned, key=len, reverse=True)
        self._names = sorted(_names, key=len, reverse=True)

    def text(self, found: str) -> str:
        if len(found) > _LONG:
            return "".join(map(self._short, _NUMBERS.split(found)))
        return self._short(found)

    def _short(self, found: str) -> str:
        for value in self._values:
            found = found.replace(value, MARK)
        if _HINT.search(found):
            for rule, replacement in _RULES:
                found = rule.sub(replacement, found)
        return self._without_names(found) if _is_leaving_out_names else found

    def _without_names(self, found: str) -> str:
        for folder in _folders:
            found = found.replace(folder, f"{folder.rpartition('/')[0]}/{MARK}")
        found = _HOME.sub(rf"\1{MARK}", found)
        for name in self._names:
            if name in found:
                found = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", MARK, found)
        return found

    def words(self, argv: Iterable[str]) -> list[str]:
        found: list[str] = []
        before: list[str] = []
        for word in argv:
            found.append(MARK if _is_value(word, before) else self.text(word))
            before.append(word)
        return found

    def plain(self, value: Any) -> Any:  # noqa: ANN401 - plain data
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._of_key(key, each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            if value and all(isinstance(each, str) for each in value):
                return self.words(value)
            return [self.plain(each) for each in value]
        return value

    def _of_key(self, key: object, value: Any) -> Any:  # noqa: ANN401 - as above
        if isinstance(key, str) and isinstance(value, str) and value and is_secret_name(key):
            return MARK
        return self.plain(value)


def _is_value(word: str, before: Sequence[str]) -> bool:
    """Return whether a word of a command line is the secret that an option before it announces."""
    option = before[-1] if before else ""
    if option in _LOGIN_OPTIONS:
        return ":" in word
    # -p is a port for most programs.
    if option == "-p":
        return any(one.rpartition("/")[2] == "sshpass" for one in before[-3:])
    is_option = option.startswith("-") and "=" not in option
    return is_option and is_secret_name(option.lstrip("-")) and not word.startswith("-")


def _values_of_environment() -> Iterator[str]:
    """Yield the secrets in the environment variables of this process."""
    for name, value in os.environ.items():
        if "://" in value:
            for found in _URL_SECRET.findall(value):
                yield from (found, urllib.parse.unquote(found))
        if is_secret_name(name):
            yield value
