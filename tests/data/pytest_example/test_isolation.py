"""An example of a project that uses pytest-isobench."""

import pytest

TARGET = "landlock"


def test_our_tool_answers_in_the_sandbox(isolated, tmp_path):
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\necho "hello $1"\n')
    done = isolated("native").run(tool, "you")
    assert (done.exit_code, done.stdout) == (0, b"hello you\n")


def test_our_function_answers(isolated):
    def add(one, other):
        return {"sum": one + other}

    assert isolated("native").call(add, 1, 2) == {"sum": 3}


def test_how_long_our_tool_takes(isolated, tmp_path, benchmark):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\nexit 0\n")
    done = benchmark(isolated("native").run, tool)
    assert done.exit_code == 0


@pytest.mark.isobench(targets=TARGET, workloads="cpu.sieve", margin="20%", budget="25s")
def test_the_sandbox_is_near_native(isobench_run):
    assert TARGET in set(isobench_run.cells["target"])


@pytest.mark.isobench(targets=TARGET, workloads="startup.warm", margin="5%", budget="20s")
def test_a_start_in_the_sandbox_is_not_near_native():
    """It fails, with the sentence of the verdict."""
