"""Fuzzes isobench.toml."""

from tests.faults import fuzzing

with fuzzing.instrumented():
    from isobench import claims
    from isobench.config import file
    from isobench.model.errors import UsageError

PLACE = fuzzing.scratch("configuration")


def check(data: bytes) -> None:
    """Read a configuration and its claims: they are valid, or refused with file and hint."""
    for name in ("isobench.toml", "pyproject.toml"):
        path = PLACE / name
        path.write_bytes(data)
        try:
            found = file.find(path)
            claims.of_table(found.settings.claims, origin=found.file, text=found.text)
        except UsageError as error:
            fuzzing.clear(error, str(path))


FUZZER = fuzzing.Fuzzer("configuration", check)
if __name__ == "__main__":
    fuzzing.main(FUZZER)
