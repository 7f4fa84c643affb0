"""Secrets, and on demand names, are left out of all that isobench writes and prints."""

import json
import os
import stat
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.config import redaction
from isobench.model import Cause, Gap
from isobench.model.units import TargetName, WorkloadName
from isobench.plugins import guard
from isobench.storage import documents, writer
from tests.unit.command import Done

HIDDEN = "hunter22"
Run = Callable[..., Done]


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (f"tcp://user:{HIDDEN}@10.0.0.1:2376: refused", "tcp://***@10.0.0.1:2376: refused"),
        (f"no answer from ssh://me:{HIDDEN}@box/x", "no answer from ssh://***@box/x"),
        (f"http://u:p@{HIDDEN}@proxy:3128/", "http://***@proxy:3128/"),
        (f"tcp://me:a#{HIDDEN}@127.0.0.1:1, no", "tcp://***@127.0.0.1:1, no"),
        (f"tcp://me:{HIDDEN}-1/?2@[::1]:1/x", "tcp://***@[::1]:1/x"),
        (f"tcp://me:12ab/{HIDDEN}@h1:1,tcp://me:a?{HIDDEN}@h2", "tcp://***@h1:1,tcp://***@h2"),
        (f"ssh://me:a/{HIDDEN}@box: tcp:/me:a/{HIDDEN}@h", "ssh://***@box: tcp:/***@h"),
        (f"https://{HIDDEN}@git.example.org/x.git", "https://***@git.example.org/x.git"),
        (f"cannot parse user:{HIDDEN}@host:1", "cannot parse ***@host:1"),
        (f"vm start --password {HIDDEN} --port 3", "vm start --password *** --port 3"),
        (f"vm --registry-token={HIDDEN} up", "vm --registry-token=*** up"),
        (f"DB_PASSWORD='{HIDDEN} {HIDDEN}' vm up", "DB_PASSWORD=*** vm up"),
        (f"AWS_SECRET_ACCESS_KEY={HIDDEN} vm", "AWS_SECRET_ACCESS_KEY=*** vm"),
        (f"Authorization: Bearer {HIDDEN}", "Authorization: ***"),
        (f"curl -H 'Authorization: Basic {HIDDEN}' x", "curl -H 'Authorization: ***' x"),
        (f"X-Auth-Token={HIDDEN}", "X-Auth-Token=***"),
        (f"curl -u me:{HIDDEN} http://x", "curl -u *** http://x"),
        (f"sshpass -p {HIDDEN} ssh box", "sshpass -p *** ssh box"),
        (f'{{"password": "{HIDDEN}", "n": 1}}', '{"password": "***", "n": 1}'),
        (f"{{'password': b'{HIDDEN}', 'n': 1}}", "{'password': \"***\", 'n': 1}"),
        (f'{{User:"me" Password:"{HIDDEN} x"}}', '{User:"me" Password:"***"}'),
        (f"http://x/?token={HIDDEN}&n=1", "http://x/?token=***&n=1"),
        (f"PGPASSWORD={HIDDEN} MYSQL_PWD={HIDDEN} psql", "PGPASSWORD=*** MYSQL_PWD=*** psql"),
        (f"SSHPASS={HIDDEN} DB_PASS={HIDDEN} ssh", "SSHPASS=*** DB_PASS=*** ssh"),
        (f"curl -H 'X-Api-Key: {HIDDEN}' x", "curl -H 'X-Api-Key: ***' x"),
        (f"curl -uadmin:{HIDDEN} x", "curl -u*** x"),
        (f"http://x/?sig={HIDDEN}&n=1", "http://x/?sig=***&n=1"),
        (f"curl --user a-u=b=:{HIDDEN} http://x", "curl --user *** http://x"),
        (f"bad proxy x/a-me:{HIDDEN}@host", "bad proxy x/a-***@host"),
        (f"a-x-amz-copy-source-key: {HIDDEN}", "a-x-amz-copy-source-key: ***"),
        (f"ssh://a:b@{HIDDEN}@box/", "ssh://***@box/"),
        ("jwt-eyJhbGciOi-J9.eyJzdWIiOiIx.c2ln_-", "jwt-***"),
        ("ghp_" + "a" * 36, "***"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{HIDDEN}\n-----END RSA PRIVATE KEY-----\nx", "***\nx"),
        (f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{HIDDEN}", "***"),
    ],
)
def test_secrets_are_left_out_of_texts(found: str, shown: str) -> None:
    assert redaction.text(found) == shown


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (f"govc -u admin@vsphere.local:{HIDDEN}@vc.example a", "govc -u ***@vc.example a"),
        (f"GOVC_URL=admin@vsphere.local:{HIDDEN}@vc", "GOVC_URL=***@vc"),
        (f"http_proxy=me@corp.example:{HIDDEN}@p", "http_proxy=***@p"),
        (f"x/me@corp.example:{HIDDEN}@p", "x/***@p"),
        (f"(root@pam:{HIDDEN}@pve)", "(***@pve)"),
        (f"root:p@{HIDDEN}:x@esx", "***@esx"),
        (f"curl -u me@corp.example:{HIDDEN} x", "curl -u *** x"),
        (f"curl -U me@corp.example:{HIDDEN} x", "curl -U *** x"),
        (f"curl -ume@corp.example:{HIDDEN} x", "curl -u*** x"),
        (f"curl -u=me@corp.example:{HIDDEN}", "curl -u=***"),
        (f"curl --user=me@corp.example:{HIDDEN}", "curl --user=***"),
        (f"podman pull --creds me:{HIDDEN} x", "podman pull --creds *** x"),
        (f"skopeo copy --src-creds=me:{HIDDEN} x", "skopeo copy --src-creds=*** x"),
        (f'user = "me:{HIDDEN}"', 'user = "***"'),
        (f"proxy-user: me@corp.example:{HIDDEN}", "proxy-user: ***"),
    ],
)
def test_a_password_after_a_user_is_left_out(found: str, shown: str) -> None:
    assert redaction.text(found) == shown


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (f"login failed for password: {HIDDEN}", "login failed for password: ***"),
        ("wrong password: swordfish", "wrong password: ***"),
        ("password: swordfish user: me", "password: *** user: me"),
        (f"PRIVATE-TOKEN: {HIDDEN}", "PRIVATE-TOKEN: ***"),
        (f"curl -H JOB-TOKEN:{HIDDEN}", "curl -H JOB-TOKEN:***"),
        (f"token: {HIDDEN}", "token: ***"),
        ("token:9f8e7d6c5b4a39281706", "token:***"),
        (f"passphrase:{HIDDEN}", "passphrase:***"),
        (f"secret: {HIDDEN}", "secret: ***"),
        (f'password = "{HIDDEN} {HIDDEN}"', "password = ***"),
        (f"aws_secret_access_key = {HIDDEN}", "aws_secret_access_key = ***"),
        (f"apikey: {HIDDEN}", "apikey: ***"),
        (f"api key: {HIDDEN}", "api key: ***"),
        (f"AccountKey={HIDDEN}==;Endpoint=x", "AccountKey=***;Endpoint=x"),
        (f"//registry.npmjs.org/:_authToken={HIDDEN}", "//registry.npmjs.org/:_authToken=***"),
        (f"machine h login me password {HIDDEN}", "machine h login me password ***"),
        ("machine h\n login me\n password swordfish\n", "machine h\n login me\n password ***\n"),
        (f"machine h password {HIDDEN} login me", "machine h password *** login me"),
        (f"the password {HIDDEN} is wrong", "the password *** is wrong"),
        *(
            (f"x {prefix}{'aB3x' * 10} y", "x *** y")
            for prefix in (
                *("dckr_pat_", "npm_", "pypi-AgEI", "sk_live_", "hvs.", "glptt-", "glpat-"),
                "github_pat_",
            )
        ),
    ],
)
def test_what_a_text_calls_a_secret_is_left_out(found: str, shown: str) -> None:
    assert redaction.text(found) == shown
    assert redaction.text(shown) == shown


@pytest.mark.parametrize(
    "name",
    [
        *("app__db__password", "app.db___pwd", "auth.postgresPassword", "x-__-Token", "a.b-apiKey"),
        *("my_accessToken", "sso-clientSecret", "x.DB__API__KEY", "dbPass", "mailPwd", "basicAuth"),
        *("-Djavax.net.ssl.trustStorePassword", "größe_password", "userCredentials", "_auth"),
    ],
)
def test_the_last_words_of_a_name_say_that_it_names_a_secret(name: str) -> None:
    assert redaction.is_secret_name(name)
    assert redaction.plain({name: HIDDEN}) == {name: "***"}
    for found in (f"{name}={HIDDEN}", f"x {name}: {HIDDEN} y", f"--{name} {HIDDEN}"):
        assert redaction.text(found) == found.replace(HIDDEN, "***")
    for quote in ('"', r"\"", r"\\\""):
        found = f"[{{{quote}{name}{quote}:{quote}{HIDDEN}{quote},{quote}n{quote}:1}}]"
        assert redaction.text(found) == found.replace(HIDDEN, "***")


@pytest.mark.parametrize(
    "name", ["author", "token_file", "passing", "keyboard", "my.authority", "secretary", "compass"]
)
def test_a_name_that_ends_otherwise_names_no_secret(name: str) -> None:
    assert not redaction.is_secret_name(name)
    for found in (f"{name}={HIDDEN}", f"{name}: {HIDDEN} y", f"--{name} {HIDDEN}"):
        assert redaction.text(found) == found
    found = json.dumps(json.dumps({name: HIDDEN, "what": "token", "why": HIDDEN}))
    assert redaction.text(found) == found


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (
            r'{"log":"{\"token\": \"a\\\"b c\", \"n\": 1}"}',
            r'{"log":"{\"token\": \"***\", \"n\": 1}"}',
        ),
        (rf'"TOKEN=\"{HIDDEN} x\" run"', '"TOKEN=*** run"'),
        (rf'"password: \"{HIDDEN} x\" is wrong"', '"password: *** is wrong"'),
        (rf"{{\"token\":\"{HIDDEN}", r"{\"token\":\"***"),
        (rf'"{{\"token\":\"{HIDDEN}" and more', r'"{\"token\":\"***" and more'),
    ],
)
def test_a_value_in_a_string_within_a_string_is_left_out(found: str, shown: str) -> None:
    assert redaction.text(found) == shown


DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "found",
    [
        "me@corp.example wrote to you@corp.example",
        "mailto:me@corp.example",
        "scp me@corp.example:/tmp/x me@corp:file you@corp:file .",
        "ssh -J me@a.example:22,you@b.example:22 c",
        "git@github.com:some/thing@v2",
        f"busybox@{DIGEST} busybox:1.36@{DIGEST},x@{DIGEST}",
        f"docker.io/library/busybox:1.36@{DIGEST}",
        "host:8080 10.0.0.1:22 my-secret:latest secret:5000/some/image/path9",
        "token: none",
        "token: unexpected end of input",
        "unexpected token: '}'",
        "unable to parse token: x509: certificate signed by nobody",
        'cannot get token: Get "https://x/y"',
        "cannot get token: 401 Unauthorized",
        "credentials: /home/me/.docker/config.json",
        "password authentication is not offered",
        "me@box's password: Permission denied",
        "login with password required",
        "passwd:         files systemd",
        "--- PASS: TestThing (0.00s), ---PASS: TestThing, pass: 12, auth: ok",
        "token: <TOKEN>",
        'user = "1000:1000", user: 0:0',
    ],
)
def test_what_only_looks_like_a_password_stays(found: str) -> None:
    assert redaction.text(found) == found


@pytest.mark.parametrize(
    "found",
    [
        "ssh://user@host:22 does not answer",
        "docker.io/library/busybox@sha256:0123456789abcdef",
        "git@github.com:some/thing.git",
        "https://host/path@v2 https://host:8080/path@v2 http://[::1]:80/path@v2",
        "https://example.org/~user/@x?mail=a@b http://x:1#y@z",
        "docker://registry:5000/thing@sha256:0123 ssh://git@host:some/thing@v2",
        "PATH=/lib:/usr:/opt/python@3.11 lib:/usr:/opt/python@3.11",
        "passwd: Authentication token manipulation error",
        "authors=5, monkeys=3, tokens of a key",
        "isobench run --targets docker --blocks 5",
        "--password-file /etc/x",
        "0 100000 65536",
        "unknown key: targets",
        "{key:a,token:b}(-u.x?c:d)",
        "PWD=/somewhere",
        "12 of 12 cells; --token",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(found: str) -> None:
    assert redaction.text(found) == found


@pytest.mark.parametrize(
    ("before", "part", "after"),
    [
        ("@", "+", ""), ("ssh:/", ":", ""), ("key ", "x-", ""), ("", "-u=", ""), ("", "eyJ-", ""),
        ("pass ", "a:!", ""), ("token", " ", "!"), ("", "--token-", ""), ("key ", "a_", ""),
        ("sshpass ", "-q ", ""), ("", "-sshpass ", ""), ('"token": "', "\\a", ""),
        ("pass ", "a.b-", ""), ("cookie:", "\n", ""), ("authorization=", " ", ""),
        ("key ", "1,", "x"), ("@", "a://b:", ""), ("@ a://b:", "a:/b:", ""), ("@ a://b:", "/:", ""),
        ("@", "a@-:", ""), ("", "a@a", ""), ("@", "a:!", ""), ("", "a@b:1,", ""),
        ("token", " :", ""), ("", "token: ", ""), ("token: ", "a ", ""), ("secret: ", "!", ""),
        ("", "password ", ""), ("", "login ", ""), ("", "pypi-", ""), ("user", "=", ""),
        ("", "a.--", ""), ("", "api_", ""),
    ],
)  # fmt: skip
def test_no_text_takes_the_square_of_its_length(before: str, part: str, after: str) -> None:
    """With one step for each pair of characters this would take a quarter of an hour."""
    found = before + part * (300_000 // len(part)) + after
    assert redaction.text(found) == found


def test_the_word_after_an_option_of_a_command_line_is_left_out() -> None:
    argv = ["vm", "--password", HIDDEN, "-p", "22", "sshpass", "-p", HIDDEN, "-u", f"me:{HIDDEN}"]
    shown = ["vm", "--password", "***", "-p", "22", "sshpass", "-p", "***", "-u", "***"]
    assert redaction.words(argv) == shown
    assert redaction.words(["--creds", f"me:{HIDDEN}", "x"]) == ["--creds", "***", "x"]


@pytest.mark.parametrize("sign", [*",;&|<>'\" "])
def test_a_secret_in_a_word_of_a_command_line_ends_with_the_word(sign: str) -> None:
    secret = f"ab{sign}{HIDDEN}"
    argv = [f"--password={secret}", f"DB_TOKEN={secret}", f"--set=db.authToken={secret}"]
    shown = ["--password=***", "DB_TOKEN=***", "--set=db.authToken=***"]
    assert redaction.words([*argv, f"http://x/?token={HIDDEN}&n=1"]) == [
        *shown,
        "http://x/?token=***&n=1",
    ]
    redaction.learn({"start": argv})
    assert HIDDEN not in redaction.text(f"refused: {secret}")


def test_tables_lose_values_of_keys_that_are_called_like_a_secret() -> None:
    table = {"password": HIDDEN, "key": "~/.ssh/id", "token_file": "/x", "more": {"api_key": "k"}}
    shown = {"password": "***", "key": "~/.ssh/id", "token_file": "/x", "more": {"api_key": "***"}}
    assert redaction.plain(table) == shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DOCKER_HOST", f"tcp://me:{HIDDEN}@host:1"),
        ("https_proxy", f"http://me:{HIDDEN}@proxy:3128"),
        ("http_proxy", f"me@corp.example:{HIDDEN}@proxy"),
        ("GOVC_URL", f"administrator@vsphere.local:{HIDDEN}@vcenter.example"),
        ("GOVC_URL", f"https://administrator@vsphere.local:{HIDDEN}@vcenter.example/sdk"),
        ("GOVC_URL", f"root:{HIDDEN}@esx"),
        ("CI_JOB_TOKEN", HIDDEN),
        ("APP__DB__PASSWORD", HIDDEN),
        ("NL_TOKEN", f"{HIDDEN}\n"),
        ("TWO_TOKEN", f"first-line\n  {HIDDEN}\r\n"),
    ],
)
def test_a_secret_of_the_environment_is_left_out_wherever_it_stands(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert redaction.text(f"login failed ({HIDDEN})") == "login failed (***)"


@pytest.mark.parametrize("sign", ["#", "/", "?", ":", "@"])
def test_a_part_of_a_password_that_is_not_escaped_is_left_out(
    sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://me:{HIDDEN}{sign}more22@127.0.0.1:1")
    host = "no Docker daemon answers at tcp://***@127.0.0.1:1"
    assert redaction.text(host.replace("***", f"me:{HIDDEN}{sign}more22")) == host
    for part in (HIDDEN, "more22", f"{HIDDEN}{sign}more22"):
        shown = redaction.text(f"no port: '{part}', see https://example.org:80/a/more/x@1")
        assert shown == "no port: '***', see https://example.org:80/a/more/x@1"


def test_a_part_of_a_password_in_a_command_is_left_out() -> None:
    redaction.learn({"vm": {"start": f"vm up tcp://me:{HIDDEN}/more22@host"}})
    assert redaction.text(f"({HIDDEN}) (more22)") == "(***) (***)"


def test_lines_of_a_private_key_do_not_hide_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("-----BEGIN PRIVATE KEY-----", "{}", "-----END PRIVATE KEY-----")
    monkeypatch.setenv("DEPLOY_SECRET", "\n".join(lines).format("in-the-variable"))
    assert redaction.text("\n".join(lines).format(HIDDEN)) == "***"
    assert redaction.text("(in-the-variable)") == "(***)"


def test_of_an_ordinary_address_nothing_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://host.example:8080/a-path@v2 http://[::1]:8080/a-path@v2"
    address += f" busybox:a-path@{DIGEST} git@host.example:a-path"
    monkeypatch.setenv("SOME_ADDRESS", address)
    for shown in (address, "a-path", "host.example"):
        assert redaction.text(shown) == shown


@pytest.mark.parametrize(
    "value", ["tabby\tsecret", "geh\u00e9im", 'quo"te\\s', 'it\'s "s"', "a<&>b?"]
)
def test_a_secret_is_left_out_also_where_it_is_escaped(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", value)
    as_json = json.dumps(["x", value], ensure_ascii=False)
    of_go = as_json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    for found in (as_json, json.dumps(["x", value]), of_go):
        assert redaction.text(found) == '["x", "***"]'
    for quoted in (urllib.parse.quote(value, ""), urllib.parse.quote_plus(value)):
        assert redaction.text(f"https://host/?x={quoted}&y") == "https://host/?x=***&y"
    for found in (repr(["x", value]), ascii(["x", value])):
        assert redaction.text(found).replace('"', "'") == "['x', '***']"
    monkeypatch.delenv("DB_PASSWORD")
    redaction.learn({"vm": {"password": value}})
    assert redaction.text(json.dumps(["x", value])) == '["x", "***"]'


def test_the_working_directory_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/somewhere")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/somewhere/agent")
    assert redaction.text("in /somewhere/agent") == "in /somewhere/agent"


@pytest.mark.parametrize(
    "table",
    [
        {"start": ["vm", "--password", HIDDEN]},
        {"stop": f"curl https://me:{HIDDEN}@host/stop"},
        {"start": f"PASSWORD={HIDDEN} vm up"},
        {"start": f"govc -u administrator@vsphere.local:{HIDDEN}@vcenter about"},
        {"start": ["govc", "-u", f"administrator@vsphere.local:{HIDDEN}@vcenter", "about"]},
        {"start": ["curl", "--user", f"me@corp.example:{HIDDEN}", "x"]},
        {"token": HIDDEN},
    ],
)
def test_what_a_command_prints_of_its_own_secret_is_left_out(table: object) -> None:
    redaction.learn({"vm": table})
    assert redaction.text(f"wrong password: {HIDDEN}") in {"wrong password: ***", "***"}


@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.parametrize(
    "url",
    [
        f"tcp://me:{HIDDEN}@host:1",
        f"govc -u administrator@vsphere.local:{HIDDEN}@vcenter.example",
        f"login failed for password: {HIDDEN}",
        f'curl: option user = "me:{HIDDEN}"',
    ],
)
def test_nothing_that_is_written_has_a_secret(
    url: str, with_names: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not with_names:
        redaction.leave_out_names()
    folder = writer.RunFolder(tmp_path / "run")
    gap = Gap(
        block=0,
        target=TargetName("box"),
        workload=WorkloadName("cpu.sieve"),
        cause=Cause.UNAVAILABLE,
        detail=f"{url} does not answer",
        hint=f"ping {url}",
    )
    folder.write(gap)
    folder.log("box", f"\xff {url}".encode("latin-1"))
    folder.document(
        "run.json", {"argv": ["run", "--password", HIDDEN], "config": {"token": HIDDEN}}
    )
    folder.document("state/box-pre.json", {"reason": url})
    folder.close()
    guard._append_to_log("box", f"Traceback: {url}")
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(written) == 5
    for path in written:
        assert HIDDEN.encode() not in path.read_bytes(), path
        assert b"***" in path.read_bytes(), path


def test_a_report_and_its_exports_leave_out_secrets_that_an_older_run_has(
    isobench: Run, synthetic: Callable[..., Path]
) -> None:
    url = f"tcp://me:{HIDDEN}@host:1"
    path = synthetic()
    lines = (path / "records.jsonl").read_bytes()
    gap = {"kind": "gap", "block": 1, "target": "box", "workload": "cpu.sieve", "cause": "failed"}
    gap |= {"detail": url, "hint": url}
    (path / "records.jsonl").write_bytes(lines + json.dumps(gap).encode() + b"\n")
    for kind in ("json", "junit", "markdown", "html", "openmetrics"):
        done = isobench("report", path, f"--export-{kind}", f"{kind}.out")
        assert (done.code, HIDDEN in done.words, "tcp://***@host:1" in done.words) == (
            0,
            False,
            True,
        )
        assert HIDDEN not in Path(f"{kind}.out").read_text()
    for name in ("summary.json", "summary.md", "report.html"):
        assert HIDDEN not in (path / name).read_text()


def test_errors_on_the_terminal_have_no_secrets(isobench: Run) -> None:
    done = isobench("report", f"tcp://me:{HIDDEN}@host")
    assert done.code == 2
    assert HIDDEN not in done.words


def test_a_run_whose_configuration_had_secrets_is_resumed_with_its_file_alone(
    isobench: Run, synthetic: Callable[..., Path], somewhere: Path
) -> None:
    tables = {"box": {"kind": "ssh", "host": "box", "start": ["vm", "--password", HIDDEN]}}
    about = {"config": {"targets": tables}, "finished": None, "interrupted": True}
    path = synthetic(about=about)
    assert HIDDEN not in (path / "run.json").read_text()
    done = isobench("run", "-q", "--resume", path)
    assert done.code == 2
    assert "run.json leaves out secrets or names of box" in done.words
    assert "--config FILE" in done.words


def test_redact_leaves_out_the_names_of_host_and_users(
    isobench: Run, synthetic: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "alice")
    monkeypatch.setenv("HOME", "/home/alice")
    name = os.uname().nodename
    facts = [{"key": "kernel.hostname", "value": "lab7.example.org", "source": "uname"}]
    path = synthetic(
        states={"native": {"name": "native", "facts": facts}},
        about={"argv": ["run", "--config", "/home/bob/c.toml"], "host": {"cpu": "AMD EPYC"}},
        gaps=[
            Gap(
                block=1,
                target=TargetName("box"),
                workload=WorkloadName("cpu.sieve"),
                cause=Cause.FAILED,
                detail=f"alice@lab7: /home/alice/x: on {name} and lab7.example.org, /home/bob/y",
                hint="sudo usermod alice",
            )
        ],
    )
    done = isobench("report", path, "--redact", "--export-json", "-")
    texts = [done.out, done.err, *((path / n).read_text() for n in ("summary.json", "report.html"))]
    assert done.code == 0
    for text in texts:
        assert [one for one in ("alice", "lab7", "/home/bob") if one in text] == []
    assert "AMD EPYC" in (path / "summary.json").read_text()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "jdoe")
    redaction.leave_out_names(["Build-7xq.corp.example", "ab", "near", "min"])


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ("nightly-build-7xq-jdoe", "nightly-***-***"),
        ("/srv/jdoe_runs/of_jdoe.json", "/srv/***_runs/of_***.json"),
        ("BUILD-7XQ.CORP.EXAMPLE", "***"),
        ("build-7xq: JDOE", "***: ***"),
        ("a\\nJdoe", "a\\n***"),
        ("my%20jdoe", "my%20***"),
        ("/dev/mapper/build--7xq--vg-root", "/dev/mapper/***--vg-root"),
        (r"dev-build\x2d7xq.device", "dev-***.device"),
    ],
)
def test_a_name_is_left_out_in_any_capitals_and_as_a_part_of_a_word(found: str, shown: str) -> None:
    assert redaction.text(found) == shown
    assert redaction.text(f"in {found}, twice") == f"in {shown}, twice"


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(
    "found",
    [
        "jdoes",
        "7jdoe",
        "build-7xqs",
        "ab-initio",
        "an AB",
        "cab",
        "--min-blocks 5",
        "KVM-jdoe is near-native",
    ],
)
def test_what_only_has_the_letters_of_a_name_stays(found: str) -> None:
    redaction.keep(["kvm-jdoe", "near-native"])
    assert redaction.text(found) == found


def test_no_name_takes_the_unit_of_a_figure_with_it() -> None:
    redaction.leave_out_names(["ms", "MiB"])
    assert redaction.text("155 ms, 3 MiB") == "155 ms, 3 MiB"


def test_a_name_that_is_kept_or_common_stays_in_any_capitals() -> None:
    redaction.keep(["sieve"])
    redaction.leave_out_names(["Sieve", "Docker", "kvm-1"])
    assert redaction.text("Docker, docker-1, SIEVE and KVM-1") == "Docker, docker-1, SIEVE and ***"


@pytest.mark.parametrize(
    "around",
    [
        "<code>{}</code>", "- `{}`: x", "| {} |", "file://{}", "&#34;{}&#34;", '"detail":"a\\n{}"',
        "{}", "PATH=/bin:{}", "({})", "*{}*",
    ],
)  # fmt: skip
def test_redact_leaves_out_names_of_other_homes_wherever_a_path_begins(around: str) -> None:
    redaction.leave_out_names()
    for home in ("/home", "/Users", "/var/home"):
        shown = redaction.text(around.format(f"{home}/ulrike/q7"))
        assert shown == around.format(f"{home}/***/q7")
        assert "ulrike" not in redaction.text(around.format(f"{home}/ulrike"))


@pytest.mark.parametrize("path", ["//home/ulrike/x", "/home//ulrike/x", "/var//home///ulrike"])
def test_redact_leaves_out_names_of_homes_also_after_two_slashes(path: str) -> None:
    redaction.leave_out_names()
    assert redaction.text(f"in {path} {path}") == f"in {path} {path}".replace("ulrike", "***")


def test_redact_takes_no_part_of_another_path_for_a_home() -> None:
    redaction.leave_out_names()
    for path in ("src/home/page", "./home/page", "https://home/page"):
        assert redaction.text(path) == path


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_results_have_the_mode_that_the_umask_allows(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        documents.write_text(tmp_path / "summary.md", "text")
        documents.write_text(tmp_path / "run.json", documents.written({}))
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert {path.name for path in tmp_path.iterdir()} == {"summary.md", "run.json"}


def test_a_failed_write_leaves_neither_half_a_file_nor_a_draft(tmp_path: Path) -> None:
    documents.write_text(tmp_path / "summary.md", "before")
    with pytest.raises(UnicodeEncodeError):
        documents.write_text(tmp_path / "summary.md", "\udcff")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]
