"""Runs the tests of a program one after another, and counts."""

import time
import traceback


def tests_of(names):
    """The functions among `names` (what `globals()` says) whose names begin with `test_`."""
    return [(name, test) for name, test in names.items() if name.startswith("test_")]


def run(tests, connect, suffix=""):
    """Each with a client of its own that `connect` makes, whatever became of those before; how many passed and failed."""
    passed = failed = 0
    for name, test in tests:
        began = time.monotonic()
        with connect() as client:
            try:
                test(client)
                passed += 1
                print(f"{name}{suffix}: ok, {time.monotonic() - began:.2f} s", flush=True)
            except Exception as error:  # the next one is worth running all the same
                failed += 1
                print(f"{name}{suffix}: {type(error).__name__}: {error}", flush=True)
                traceback.print_exc()
    return passed, failed


def report(passed, failed):
    """The last line, and the exit status."""
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0
