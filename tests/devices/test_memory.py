"""Peak memory is that of the work itself, not of whoever started it."""

import sys

import pytest

from wieldy import errors
from wieldy.devices import memory

MIB = 1 << 20


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_peak_of_this_process_grows_with_what_it_touches():
    before = memory.peak()
    held = bytearray(before + 64 * MIB)
    assert memory.peak() > len(held)


def test_peak_of_a_command_follows_what_it_allocates():
    small = memory.run(python("pass")).peak
    large = memory.run(python(f"bytearray({200 * MIB})")).peak
    assert 190 * MIB < large - small < 300 * MIB


def test_peak_of_a_command_is_not_its_starters():
    held = bytearray(300 * MIB)
    assert memory.run(python("pass")).peak < 100 * MIB < len(held)


def test_output_status_and_environment_of_a_command():
    code = "import os, sys; print(os.environ['COLOUR']); print('oh', file=sys.stderr); sys.exit(3)"
    done = memory.run(python(code), {"COLOUR": "blue"})
    assert (done.output, done.errors, done.exit_status) == ("blue\n", "oh\n", 3)
    assert done.seconds > 0


def test_killed_command_has_a_negative_status():
    assert memory.run(python("import os; os.kill(os.getpid(), 9)")).exit_status == -9


def test_missing_program_is_named():
    with pytest.raises(errors.MissingError, match="there is no program 'no-such-program': install it"):
        memory.run(["no-such-program"])
