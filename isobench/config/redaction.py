"""Leaves secrets, and on demand names, out of what isobench writes and prints.

Texts are redacted where they leave: in the documents, records and logs of a run, in exports, and on
the terminal. No code before that has to know which of its texts hold a secret. This happens to
values, before they become JSON, a page or a table: in a whole document a rule could take markup for
a part of a secret. Identifiers stay as they are (`keep`): the files of a run refer to each other by
them.

What counts as a secret: a user name with a password in a URL, or before an "@" without one; values
of options, variables and keys that are called like a secret (`--password X`, `TOKEN=x`, "password":
"x", `token: x`); headers that authorize; private keys; tokens of well-known forms; and every
password in a URL, and every value under such a name, that the environment of this process has,
wherever it stands.
"""

import contextlib
import dataclasses
import json
import os
import pwd
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from isobench.model.cleaning import cleaned

MARK: Final = "***"
"""What stands in place of what is left out."""
# A name is the longest run of its characters before "=", ":" or a value. Signs divide it into
# words, any number of them, and so does a change from small letters to a capital:
# app__db__password, auth.postgresPassword. It names a secret if its last word does, or its last
# two; one that ends otherwise, as token_file, says where the secret is. So what precedes these
# words need not be read, and a long name takes no longer.
_CAPITAL: Final = r"(?-i:(?<=[a-z0-9])(?=[A-Z]))"
_BEGINS: Final = rf"(?:(?<![^\W_])|{_CAPITAL})"
_FOLLOWS: Final = rf"(?:(?<=[_.])|(?<=[^\W_]-)|{_CAPITAL})"
_KEY: Final = r"[_.-]*keys?"
_LAST_WORD: Final = (
    rf"(?:{_BEGINS}(?:passw(?:or)?d|sshpass|passphrase|secrets?|tokens?|credentials?|authorization"
    rf"|cookie|(?:api|access|account|secret|private|session){_KEY})"
    # PWD itself is the working directory; MYSQL_PWD is a password.
    rf"|{_FOLLOWS}pwd"
    # These end a word also where nothing divides it, as in PGPASSWORD.
    r"|password|passwd|passphrase|token|secret|(?:api|access|account|secret|private)key)"
)
_NAMED: Final = rf"(?=[acpst])(?:{_LAST_WORD}|{_BEGINS}(?:auth|pass))"
# "auth" and "pass" alone are also a part of a program, and the result of a test.
_NAMED_IN_TEXT: Final = (
    rf"(?=[acpst])(?:{_LAST_WORD}|{_FOLLOWS}(?:auth|pass)"
    r"|(?:api|access|account|secret|private)[ ]key)"
)
_NAME: Final = re.compile(rf"[\w./:\[\]-]*{_NAMED}", re.IGNORECASE)
_NAMED_VALUE: Final = re.compile(rf"[\w./:=\[\]-]*?{_NAMED}=(?!=)", re.IGNORECASE)
"""The beginning of a word of a command line, before a secret."""
_LONGEST: Final = r"[\w.-]{0,100}"
"""What of a name precedes its last words, where a rule must know how the name begins."""
# In a string within a string each quotation mark has a backslash before it, and one that is a part
# of the value has more of them.
_QUOTE: Final = r"\\*+[\"']"
_ESCAPED: Final = (
    r"(?P<slashes>\\+)(?P<quote>[\"'])"
    r"(?:(?!(?P=quote))[^\\]|(?!(?P=slashes)(?P=quote))\\++(?P=quote)?+)*+"
)
# The end of a text that was cut may lack the second quotation mark.
_QUOTED: Final = r"\"(?:[^\"\\]|\\.)*+\"|'[^']*+'|\"[^\"\\]++\Z|'[^']++\Z"
_VALUE: Final = rf"(?:{_QUOTED}|{_ESCAPED}(?:(?P=slashes)(?P=quote))?+|[^\s\"',;&|<>]+)"

# Nearly all texts hold nothing of this, and are searched once only.
_HINT: Final = re.compile(
    r"@|pass|pwd|secret|token|cred|key|auth|cookie|-u|user|sig|akia|asia|gh[opsur]_|github_|eyj|xox|gl[a-z]"
    r"|dckr_|npm_|pypi-|[rs]k_|hv[bsr]\.",
    re.IGNORECASE,
)
# Coordinates and times, as in the pages of long histories: megabytes that no rule needs to search.
_NUMBERS: Final = re.compile(r"(?<=[,\s])((?:-?[0-9.]{1,24}[,\s]+){50,})")
_LONG: Final = 100_000
_PORT: Final = r"[0-9]{1,5}[/?#]"
"""A port with what follows it in a URL."""
# A user name, perhaps with its domain as in me@corp.example, a password and a host. As Go and curl
# divide them, the last @ ends the password. The @ of an image's digest ends none, and what follows
# the domain of a user may be a port in a list of hosts.
_USER: Final = r"(?!mailto:)[\w.%+-]++"
_DOMAIN: Final = r"@(?!sha[0-9]{3}:)\w[\w.-]*+:(?![0-9]{1,5},)"
_BEFORE_HOST: Final = r"(?=[\w\[])(?!sha[0-9]{3}:)"
_LOGINS: Final = (
    # It begins with the first colon of a word, after what cannot be a part of the user name.
    re.compile(
        r"(?<![^\s\"'<>])((?:[^\s\"'<>/:@]*[^\s\"'<>/:@\w.%+-])?+)"
        rf"{_USER}(?:{_DOMAIN}|:)[^\s/\"'<>]+@{_BEFORE_HOST}"
    ),
    re.compile(rf"(?<![\w.%+@-])(){_USER}{_DOMAIN}[^\s/\"'<>]+@(?=[\w\[])"),
    # As requests and urllib3 print what they could not parse: "user:password@host" alone. After a
    # slash or an @ stands the rest of something else, to the first character that may separate.
    re.compile(
        r"(?<![\w.%+-])((?<=[/@])[\w.]*+[%+-]|(?<![/@]))"
        rf"{_USER}:[^\s:/@\"'<>]++@{_BEFORE_HOST}"
    ),
)
_LOGIN_OPTION: Final = r"(?:-u|-U|--user|--proxy-user|--(?:src-|dest-)?creds)"
_BLANKS: Final = r"[ \t]{0,16}"
# What follows a colon in a sentence: a word with more words after it that begin no next value, a
# number that counts or is a status, the place of a secret, the error within an error.
_PROSE: Final = (
    r"(?-i:[A-Z]?[a-z]++(?:'[a-z]+)?[,.]?[ \t]+[\"'(\[]?[A-Za-z]++"
    r"(?![\w.-]{0,40}[ \t]?(?:=|:(?!//)))"
    r"|(?:x509|[a-z]++(?:\.[A-Z][A-Za-z]*+)?):[ \t])"
    r"|[0-9]{1,3}(?![\w.-])"
    r"|(?:~|\.{1,2})/|/(?:dev|etc|home|mnt|opt|proc|root|run|srv|sys|tmp|usr|var)/|[a-z][a-z+]*+://"
    r"|(?:none|null|nil|true|false|yes|no|on|off|ok|eof|any|all|default|optional|required|set|unset"
    r"|empty|missing|absent|found|unknown|invalid|incorrect|wrong|expired|changed|denied|refused"
    r"|rejected|failed|failure|error|unauthorized|forbidden|unavailable|unsupported|enabled"
    r"|disabled|files|compat)[.,;:!?)\]}\"']{0,3}(?:\s|\Z)"
    r"|[\"']?\*\*\*"
)
_HAS_LETTER: Final = rf"(?=(?:{_QUOTE})?[^\s\"']*\w)"
# Texts may come from anybody: each rule takes time in proportion to the text. Where it could begin
# at many places of one run of characters, it says which of them is the first, or has a bound.
_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (
        re.compile(
            r"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END \1-----|\Z)",
            re.DOTALL,
        ),
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
        re.compile(r"((?:ssh|sftp):/{1,2})[^\s/?#\"'<>:]*+:[^\s/?#\"'<>]*@", re.IGNORECASE),
        rf"\1{MARK}@",
    ),
    # A "/", "?" or "#" in a password should be escaped, and sometimes is not. A colon before the
    # first of them is that of a password unless a port follows it. It ends with the last @ before
    # another URL.
    (
        re.compile(
            r"(?<![\w+.-])([A-Za-z][\w+.-]*:/(?:/(?!\[)|(?=[^\s/?#@:\"'<>\[]*+:(?!/))))"
            rf"[^\s/?#@:\"'<>]*+:(?!{_PORT})"
            r"(?:[^\s@:\"'<>]*+(?::(?!/)[^\s@:\"'<>]*+)*+@)++"
        ),
        rf"\1{MARK}@",
    ),
    *((one, rf"\1{MARK}@") for one in _LOGINS),
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
    (
        re.compile(rf"((?<![\w-])--?{_LONGEST}{_NAMED}(?:=|\s+))(?!-){_VALUE}", re.IGNORECASE),
        rf"\1{MARK}",
    ),
    # The user has no "=" that ends another such option.
    (
        re.compile(
            rf"((?<![\w-]){_LOGIN_OPTION}[=\s]\s*)(?!\*\*\*@)"
            r"(?:[^\s:=]|(?<![^\w-]-u)(?<![^\w-]-U)(?<![^\w-]--user)(?<![^\w-]--proxy-user)"
            r"(?<!-creds)=)++"
            rf":{_VALUE}"
        ),
        rf"\1{MARK}",
    ),
    (re.compile(rf"((?<=\s)-u)[A-Za-z][\w.@%+-]*:{_VALUE}"), rf"\1{MARK}"),
    # A file of options of curl. Two numbers are those of a user and a group.
    (
        re.compile(
            rf"((?<![\w.-])(?:proxy-)?user[\"']?{_BLANKS}[:=]{_BLANKS}[\"']?)"
            r"(?![0-9]+:[0-9]+(?![\w.-]))[^\s\"':=]++:(?!//)[^\s\"']++",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    # A .netrc, in one line or in several.
    (
        re.compile(
            r"(\b(?:machine|login|account)\s{1,16}(?!(?:with|by|using|via|and|or|for)\s)\S{1,256}"
            r"\s{1,16}passw(?:or)?d\s{1,16})\S+"
        ),
        rf"\1{MARK}",
    ),
    (
        re.compile(
            r"(\bpassw(?:or)?d[ \t]{1,16})(?!(?:sha|md|ssh|tls)-?[0-9])"
            r"(?=[^\s0-9]*[0-9])(?=[^\sA-Za-z]*[A-Za-z])[^\s\"',;&|<>]{6,}",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    # A header, and the signature of a link.
    (
        re.compile(
            r"(\b(?:x|api|access|auth|(?:private|job|deploy)(?=-token))-(?:[a-z]{1,40}-){0,10}"
            r"(?:key|token|secret)\s*:\s*"
            r"[\"']?)[^\s\"',;]+",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    (re.compile(r"([?&](?:x-amz-)?sig(?:nature)?=)[^\s&\"'<>]+", re.IGNORECASE), rf"\1{MARK}"),
    (re.compile(r"(\bsshpass\s+(?:-\w+\s+){0,20}-p\s*)\S+"), rf"\1{MARK}"),
    (re.compile(rf"({_NAMED}(?:{_QUOTE})?=)(?!=){_VALUE}", re.IGNORECASE), rf"\1{MARK}"),
    # As JSON has it, Python with bytes, and Go.
    (
        re.compile(
            rf"({_NAMED}(?:[\"']\s*[:=]\s*|:))(?:[bru]{{1,2}}(?=[\"']))?(?:{_QUOTED})",
            re.IGNORECASE,
        ),
        rf'\1"{MARK}"',
    ),
    (
        re.compile(rf"({_NAMED}{_QUOTE}\s*[:=]\s*(?=(\\+[\"'])))(?:{_ESCAPED})", re.IGNORECASE),
        rf"\1\2{MARK}",
    ),
    # With blanks, as in messages and in files of options.
    (
        re.compile(
            rf"({_NAMED_IN_TEXT}(?:{_QUOTE})?(?:{_BLANKS}:[ \t]{{1,16}}|[ \t]{{1,16}}={_BLANKS}"
            rf"|=[ \t]{{1,16}}))(?!=)(?!{_PROSE}){_HAS_LETTER}{_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    # A colon alone also stands before a port and before the tag of an image.
    (
        re.compile(
            rf"((?<![\w./-]){_LONGEST}{_NAMED_IN_TEXT}(?:{_QUOTE})?:)(?!//|{_PORT}|[\"']?\*\*\*)"
            r"(?:(?<=word:)|(?<=passwd:)|(?<=phrase:)"
            r"|(?=[^\s\"',;&|<>]{16})(?=[^\s\"',;&|<>0-9]{0,64}[0-9]))"
            r"[^\s\"',;&|<>]{6,}",
            re.IGNORECASE,
        ),
        rf"\1{MARK}",
    ),
    (
        re.compile(
            r"\b(?:gh[opsur]_\w{20,}|github_pat_\w{20,}|xox[abprs]-[\w-]{10,}"
            r"|gl(?:pat|ptt|dt|rt|cbt|ft|soat|agent)-[\w-]{16,}"
            r"|dckr_[op]at_[\w-]{16,}|npm_[A-Za-z0-9]{30,}|[rs]k_(?:live|test)_\w{10,}"
            r"|hv[bsr]\.[\w-]{16,}|pypi-(?=[a-z_-]{0,40}[A-Z0-9])[\w-]{16,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
            r"|eyJ(?:\w|-(?!eyJ)){8,}+\.eyJ[\w-]{8,}+\.[\w-]*)"
        ),
        MARK,
    ),
)
# What follows the user name and its colon, up to the next URL.
_URL_SECRET: Final = re.compile(
    r"(?<=[\w+.-])://(?!\[)[^\s/?#@:]*+(?:@\w[\w.-]*+(?=:[^\s/?#]*@))?:((?:(?!://)\S)*+)"
)
_PORT_FIRST: Final = re.compile(_PORT)
_SIGNS: Final = "/?#:@"
"""Where parsers of URLs divide them."""
_SHORTEST_VALUE: Final = 6
"""Characters of a value of the environment that is left out wherever it stands. A shorter one would
match by chance."""
_SHORTEST_PART: Final = 3
"""Characters of a name that is left out also where "-" or "_" joins it to another word. A shorter
one would match by chance.
"""
_OPTION: Final = r"--[a-z]+(?:-[a-z]+)*"
_NO_LETTER: Final = r"(?:(?<![^\W_])|(?<=\\[nrt])|(?<=%[0-9a-f]{2}))"
"""Before the beginning of a word, also where what precedes it is escaped."""
_IS_LOGIN_OPTION: Final = re.compile(_LOGIN_OPTION).fullmatch
"""Options of curl, Podman and others whose value may be "user:password"."""
_NAMING_KEYS: Final = frozenset({"user", "host", "hostname", "login"})
"""Options of targets that name a machine or a user of it."""
_ROOTS_HOME: Final = Path("/root")
# Names that are also words of isobench or of every system: left out of paths alone.
_COMMON: Final = frozenset({
    *("root", "nobody", "user", "users", "host", "localhost", "home", "runner", "test", "guest"),
    *("native", "docker", "podman", "kvm", "qemu", "lxc", "uml", "ssh", "wine", "wasm", "gvisor"),
    *("nspawn", "kubernetes", "distrobox", "bubblewrap", "firejail", "landlock", "namespaces"),
    *("isobench", "linux", "debian", "ubuntu", "admin", "auto", "all", "(none)"),
    # Units, and commands of isobench.
    *("ns", "us", "ms", "min", "kb", "mb", "gb", "kib", "mib", "gib", "run", "report"),
})  # fmt: skip
# An absolute path: after no part of a path, but after "file://" or a line end as JSON has it. Two
# slashes after a colon are those of a URL.
_HOME: Final = re.compile(
    r"((?:(?<![\w.~/-])/|(?<![\w.~/:-])//+|(?<=://)/|(?<=\\[nrt])/+)(?:var/+)?(?:home|Users)/+)"
    r"[^/\s\"'`,:;)\]<>&|\\]+"
)

_IDENTIFYING: Final = frozenset({"key", "code", "doubt_codes"})
"""Fields that name something and are no secret: those of evidence and of doubts."""
_T = TypeVar("_T")

_names: set[str] = set()
_folders: set[str] = set()
_learned: set[str] = set()
_kept: set[str] = set()
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
    # As the device mapper and systemd write a dash within a name.
    found |= {name.replace("-", dash) for name in found for dash in ("--", r"\x2d")}
    found = {one for one in found if len(one) > 1 and one.lower() not in _COMMON}
    # "vm" is a host, and VM is a word.
    _names.update(one if len(one) < _SHORTEST_PART else one.lower() for one in found)
    with contextlib.suppress(RuntimeError):
        home = Path.home()
        if home not in {Path(home.root), _ROOTS_HOME}:
            _folders.add(str(home))


def is_leaving_out_names() -> bool:
    """Return whether names are left out."""
    return _is_leaving_out_names


def reset() -> None:
    """Leave out only secrets again, and forget what was learned and what is kept."""
    global _is_leaving_out_names  # noqa: PLW0603 - as above
    _is_leaving_out_names = False
    for known in (_names, _folders, _learned, _kept):
        known.clear()


def keep(identifiers: Iterable[str]) -> None:
    """Leave these names and words as they are from now on: what is called like one of them is no
    secret and no name of a user, and a text that is one of them stays.
    """
    _kept.update(identifiers)


def learn(table: Any) -> None:  # noqa: ANN401 - plain data
    """Leave out the secrets in a configuration wherever else they appear, for example in what a
    command of it prints.
    """
    redactor = _Redactor()
    redactor.plain(table)
    parts = [part for one in redactor.taken_before_hosts for part in _parts(one.partition(":")[2])]
    for found in (*redactor.taken, *parts):
        # Of "user:password", the password alone is a secret.
        whole = found.strip("\"'")
        passwords = (whole.partition(":")[2], whole.rpartition(":")[2])
        forms = {form for one in (found, whole, *passwords) for form in _shown_as(one)}
        _learned.update(one for one in forms if len(one) >= _SHORTEST_VALUE)


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


def bare(found: str) -> str:
    """Return a text for the terminal: without secrets, and without what controls a terminal."""
    return cleaned(text(found), longest=None)


def beginning(found: str, most: int) -> str:
    """Return the beginning of a text, without secrets. Half a secret is not recognized later."""
    return text(found)[:most]


def words(argv: Iterable[str]) -> list[str]:
    """Return a command line without secrets; `--password X` may be two words."""
    return _Redactor().words(argv)


def plain(value: _T) -> _T:
    """Return data without secrets: of TOML or JSON, or objects with their types.

    Keys, and the members of enumerations, stay as they are.
    """
    found: _T = _Redactor().plain(value)
    return found


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
        forms = {form for one in (known | _learned) - _kept for form in _forms(one)}
        self._values = sorted(forms - _kept, key=len, reverse=True)
        self.taken: list[str] = []
        """What the rules have left out so far."""
        self.taken_before_hosts: list[str] = []
        """What of it stood before the @ of a host."""

    def text(self, found: str) -> str:
        if found in _kept:
            return found
        if len(found) > _LONG:
            return "".join(map(self._short, _NUMBERS.split(found)))
        return self._short(found)

    def _short(self, found: str) -> str:
        for value in self._values:
            found = found.replace(value, MARK)
        if _HINT.search(found):
            for rule, replacement in _RULES:
                found = rule.sub(partial(self._take, replacement), found)
        return self._without_names(found) if _is_leaving_out_names else found

    def _take(self, replacement: str, match: re.Match[str]) -> str:
        """Return what replaces a match of a rule, and keep what it takes away."""
        before, _, after = replacement.partition(MARK)
        kept = match.expand(before)
        whole = match.group()
        self.taken.append(whole[len(kept) : len(whole) - len(after)])
        if after == "@":
            self.taken_before_hosts.append(self.taken[-1])
        return f"{kept}{MARK}{after}"

    def _without_names(self, found: str) -> str:
        for folder in _folders:
            found = found.replace(folder, f"{folder.rpartition('/')[0]}/{MARK}")
        found = _HOME.sub(rf"\1{MARK}", found)
        lowered = found.lower()
        if any(name in lowered or name in found for name in _names):
            return self._name.sub(lambda match: MARK if match[1] else match[0], found)
        return found

    @cached_property
    def _name(self) -> re.Pattern[str]:
        """The pattern of a name in a text, which is its group. It also takes what stays and may
        have a name as a part: identifiers that are kept, and options.
        """
        kept = {one.lower() for one in _kept}
        names = sorted(_names - kept, key=len, reverse=True)
        around = [re.escape(one) for one in kept if any(name in one for name in names)]
        whole = "|".join((*sorted(around, key=len, reverse=True), _OPTION))
        parts = (_pattern_of(name) for name in names)
        return re.compile(
            rf"(?<![\w-])(?:{whole})(?![\w-])|({'|'.join(parts) or '(?!)'})", re.IGNORECASE
        )

    def words(self, argv: Iterable[str]) -> list[str]:
        found: list[str] = []
        before: list[str] = []
        for word in argv:
            # The value may be more than the secret, as in "user:password@host".
            shown = self.text(word)
            if _is_value(word, before):
                shown = self._left_out(word)
            elif shown != word and (named := _NAMED_VALUE.match(word)):
                # The value ends with the word, whatever signs it has.
                shown = named.group() + self._left_out(word[named.end() :])
            found.append(shown)
            before.append(word)
        return found

    def _left_out(self, value: str) -> str:
        self.taken.append(value)
        return MARK

    def plain(self, value: Any) -> Any:  # noqa: ANN401 - plain data
        if isinstance(value, str):
            return value if isinstance(value, Enum) else self.text(value)
        if value is None or isinstance(value, float | int):
            return value
        if isinstance(value, Mapping):
            return {key: self._of_key(key, each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return self._sequence(value)
        if isinstance(value, msgspec.Struct):
            names: Iterable[str] = value.__struct_fields__
            return self._object(value, names, msgspec.structs.replace)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = (one.name for one in dataclasses.fields(value) if one.init)
            return self._object(value, names, dataclasses.replace)
        return value

    def _sequence(self, value: Sequence[Any]) -> Any:  # noqa: ANN401 - as above
        if value and all(type(each) is str for each in value):
            found = self.words(value)
        else:
            found = [self.plain(each) for each in value]
        if isinstance(value, list):
            return found
        return type(value)(*found) if hasattr(value, "_fields") else tuple(found)

    def _object(self, value: Any, names: Iterable[str], replace: Callable[..., Any]) -> Any:  # noqa: ANN401 - as above
        changed = {}
        for name in names:
            before = getattr(value, name)
            if name not in _IDENTIFYING:
                after = self._of_key(name, before)
                if after is not before:
                    changed[name] = after
        return replace(value, **changed) if changed else value

    def _of_key(self, key: object, value: Any) -> Any:  # noqa: ANN401 - as above
        if type(value) is not str:
            return self.plain(value)
        # A class of workloads may be called "auth": its verdict is no secret.
        is_verdict = key in _kept and value in _kept
        if value and isinstance(key, str) and is_secret_name(key) and not is_verdict:
            return self._left_out(value)
        return self.text(value)


def _pattern_of(name: str) -> str:
    if len(name) < _SHORTEST_PART:
        return rf"(?-i:(?<![\w-]){re.escape(name)}(?![\w-]))"
    return rf"{_NO_LETTER}{re.escape(name)}(?![^\W_])"


def _is_value(word: str, before: Sequence[str]) -> bool:
    """Return whether a word of a command line is the secret that an option before it announces."""
    option = before[-1] if before else ""
    if _IS_LOGIN_OPTION(option):
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
            for found in map(_passwords, _URL_SECRET.findall(value)):
                for one in found:
                    yield from (one, urllib.parse.unquote(one))
        elif "@" in value:
            for match in (found for rule in _LOGINS for found in rule.finditer(value)):
                login = match.group()[len(match[1]) : -1]
                for one in _parts(login.partition(":")[2]):
                    yield from (one, urllib.parse.unquote(one))
        if is_secret_name(name):
            yield from _shown_as(value)


def _shown_as(value: str) -> Iterator[str]:
    """Yield a secret as it is, and as programs print it: without blanks around it, line by line."""
    yield value
    for line in map(str.strip, value.splitlines()):
        # All private keys have the same first line, by which those in a text are recognized.
        if not line.startswith("-----"):
            yield line


def _passwords(found: str) -> Iterator[str]:
    """Yield the password that begins a text of a URL, and parts of it; nothing for a port."""
    longest = found.rpartition("@")[0]
    authority = re.split(r"[/?#]", found, maxsplit=1)[0]
    if "@" in authority:
        # A later @ may be that of a path, or the password may have both signs.
        yield longest
        yield from _parts(authority.rpartition("@")[0])
    elif not _PORT_FIRST.match(found):
        yield from _parts(longest)


def _parts(password: str) -> Iterator[str]:
    """Yield a password of a URL, and its parts that an error may name: a parser takes them for a
    port, a host or a path where the password is not escaped.
    """
    yield password
    yield from re.split(rf"[{_SIGNS}]", password)
    for sign in _SIGNS:
        first, _, rest = password.partition(sign)
        yield from (first, rest)


def _forms(value: str) -> Iterator[str]:
    """Yield a value as it is, and as it stands in JSON, in what Python and Go print of it, and in a
    URL.
    """
    as_json = json.dumps(value, ensure_ascii=False)
    of_go = as_json.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
    for quoted in (as_json, json.dumps(value), of_go, repr(value), ascii(value)):
        yield quoted[1:-1]
    for quote in (urllib.parse.quote, urllib.parse.quote_plus):
        for safe in ("", "/"):
            yield quote(value, safe, "utf-8", "surrogateescape")
    yield value
