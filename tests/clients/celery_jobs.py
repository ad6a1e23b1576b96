"""Celery, unmodified, with a running server as its broker and for its results: `celery_jobs.py PORT`.

It starts a worker of two processes beside itself, and ends it. The last line counts what was tried.
"""

import os
import subprocess
import sys
import time

import redis
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from runner import report, run, tests_of

PORT = int(sys.argv[1]) if sys.argv[1:2] and sys.argv[1].isdigit() else int(os.environ["RINGSHARD_PORT"])
os.environ["RINGSHARD_PORT"] = str(PORT)
URL = f"redis://127.0.0.1:{PORT}"

app = Celery("celery_jobs", broker=f"{URL}/0", backend=f"{URL}/1")
app.conf.update(
    task_acks_late=True,
    result_extended=True,
    worker_prefetch_multiplier=4,
    broker_transport_options={"priority_steps": [0, 3, 6, 9], "queue_order_strategy": "priority"},
    broker_connection_retry_on_startup=True,
)
WAIT = 60
LOOKS_AGAIN = 3


def wait_for(result):
    """The result, when it comes. Celery subscribes to it, and without waiting for that to be confirmed looks over another
    connection whether it is there. Between the two it may come, and is missed where connections are served side by side;
    who asks again finds it.
    """
    deadline = time.monotonic() + WAIT
    while True:
        try:
            return result.get(timeout=LOOKS_AGAIN)
        except CeleryTimeoutError:
            if time.monotonic() > deadline:
                raise
            print("looked again for", result, file=sys.stderr)


@app.task
def double(n):
    count = redis.Redis(host="127.0.0.1", port=PORT, db=2)
    count.incr("runs")
    return 2 * n


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=5)
def works_at(self, times):
    if self.request.retries + 1 < times:
        raise self.retry(countdown=0.05)
    return self.request.retries


@app.task(bind=True)
def reports(self):
    self.update_state(state="PROGRESS", meta={"done": 50})
    time.sleep(0.5)
    return "done"


@app.task
def fails():
    raise ValueError("as it should")


@app.task
def when():
    return time.time()


def test_many_tasks(counts):
    results = [double.delay(i) for i in range(300)]
    assert [wait_for(result) for result in results] == [2 * i for i in range(300)]
    assert int(counts.get("runs")) == 300, "each runs once"
    [result.forget() for result in results]


def test_groups_chords_and_chains(_):
    assert wait_for(group(double.s(i) for i in range(50))()) == [2 * i for i in range(50)]
    assert wait_for(chord((double.s(i) for i in range(50)), total.s())()) == 2 * sum(range(50))
    chords = [chord([double.s(i), double.s(i + 1), double.s(i + 2)], total.s())() for i in range(20)]
    assert [wait_for(result) for result in chords] == [6 * i + 6 for i in range(20)]
    assert wait_for(chain(double.s(1), double.s(), double.s())()) == 8
    nested = chain(group(double.s(i) for i in range(5)), total.s(), double.s())
    assert wait_for(nested()) == 40


def test_retries_and_errors(_):
    assert wait_for(works_at.delay(4)) == 3
    result = fails.delay()
    try:
        wait_for(result)
    except ValueError as error:
        assert str(error) == "as it should"
    else:
        raise AssertionError("an error was expected")
    assert result.failed() and "ValueError" in result.traceback
    broken = chord([double.s(1), fails.s()], total.s())()
    try:
        wait_for(broken)
    except Exception as error:
        assert "as it should" in str(error), error
    else:
        raise AssertionError("an error was expected")


def test_countdowns_and_revocation(_):
    asked = time.time()
    result = when.apply_async(countdown=1)
    assert wait_for(result) >= asked + 1
    never = double.apply_async((1,), countdown=1)
    app.control.revoke(never.id)
    try:
        wait_for(never)
    except TaskRevokedError:
        pass
    else:
        raise AssertionError("it was revoked")


def test_states_and_control(_):
    result = reports.delay()
    deadline = time.monotonic() + WAIT
    seen = set()
    while not result.ready():
        seen.add(result.state)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "PROGRESS" in seen and result.get() == "done" and result.name == "celery_jobs.reports"
    # The one worker that there is answers, and no more are waited for.
    assert len(app.control.broadcast("ping", reply=True, timeout=WAIT, limit=1)) == 1
    registered = app.control.inspect(timeout=WAIT, limit=1).registered()
    assert "celery_jobs.double" in list(registered.values())[0]
    double.apply_async((1,), queue="elsewhere", priority=6)
    app.control.add_consumer("elsewhere")
    wait_for(double.apply_async((4,), queue="elsewhere", priority=0))


def start_worker():
    command = [sys.executable, "-m", "celery", "-A", "celery_jobs", "worker", "--concurrency=2", "--loglevel=ERROR"]
    command += ["--without-gossip", "--without-mingle", "-n", f"tester{os.getpid()}@local"]
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.abspath(__file__)), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, env=env, stdout=sys.stderr)


def fresh():
    counts = redis.Redis(host="127.0.0.1", port=PORT, db=2)
    counts.flushdb()
    return counts


def main():
    redis.Redis(host="127.0.0.1", port=PORT).flushall()
    worker = start_worker()
    try:
        wait_for(double.delay(0))
        counts = run(tests_of(globals()), fresh)
    finally:
        worker.terminate()
        worker.wait(timeout=WAIT)
    return report(*counts)


if __name__ == "__main__":
    # What runs in a worker is known by its module's name, which this one's is not while it is the program.
    import celery_jobs

    sys.exit(celery_jobs.main())
