"""RQ, unmodified, against a running server: `rq_jobs.py PORT`. The last line counts what was tried.

Its workers are processes: each runs in a copy of this program.
"""

import datetime
import os
import sys
import time

import redis
from rq import Queue, Retry, SimpleWorker, Worker
from rq.job import Dependency, Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, ScheduledJobRegistry
from rq.scheduler import RQScheduler
from runner import report, run, tests_of

PORT = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ["RINGSHARD_PORT"])
os.environ["RINGSHARD_PORT"] = str(PORT)


def connect():
    return redis.Redis(host="127.0.0.1", port=PORT)


def double(n):
    connect().incr("runs")
    return 2 * n


def fails_until(name, times):
    count = connect().incr(f"tries:{name}")
    if count < times:
        raise ValueError(f"try {count}")
    return count


def total(*ids):
    return sum(Job.fetch(id, connection=connect()).return_value() for id in ids)


def in_processes(count, queues, with_scheduler=False):
    """Runs workers in processes until the queues are empty."""
    children = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                # The fork server of a usual worker would double the processes; what they say to the server is the same.
                worker = SimpleWorker(queues, connection=connect(), name=f"worker-{number}-{time.time_ns()}")
                worker.work(burst=True, logging_level="ERROR", with_scheduler=with_scheduler)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children), "a worker failed"


def until(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


def test_many_jobs_by_several_workers(r):
    queue = Queue("many", connection=r)
    jobs = [queue.enqueue(double, i) for i in range(200)]
    jobs += queue.enqueue_many([Queue.prepare_data(double, (i,)) for i in range(200, 400)])
    assert queue.count == 400
    in_processes(4, ["many"])
    assert int(r.get("runs")) == 400, "each runs once"
    assert queue.count == 0 and len(FinishedJobRegistry(queue=queue)) == 400
    assert [job.return_value() for job in jobs] == [2 * i for i in range(400)]


def test_retries_and_failures(r):
    queue = Queue("retries", connection=r)
    works = queue.enqueue(fails_until, "works", 3, retry=Retry(max=4))
    fails = queue.enqueue(fails_until, "fails", 100, retry=Retry(max=2))
    in_processes(1, ["retries"])
    assert works.get_status(refresh=True) == JobStatus.FINISHED and works.return_value() == 3
    assert fails.get_status(refresh=True) == JobStatus.FAILED and int(r.get("tries:fails")) == 3
    assert "try 3" in fails.latest_result().exc_string
    registry = FailedJobRegistry(queue=queue)
    assert registry.get_job_ids() == [fails.id]
    r.set("tries:fails", 99)
    registry.requeue(fails.id)
    in_processes(1, ["retries"])
    assert fails.get_status(refresh=True) == JobStatus.FINISHED and len(registry) == 0


def test_dependencies_and_priorities(r):
    low, high = Queue("low", connection=r), Queue("high", connection=r)
    parts = [low.enqueue(double, i) for i in range(10)]
    after = high.enqueue(total, *[part.id for part in parts], depends_on=Dependency(jobs=parts))
    assert after.get_status() == JobStatus.DEFERRED
    in_processes(2, ["high", "low"])
    in_processes(1, ["high"])
    assert after.return_value() == 90
    first = low.enqueue(double, 1)
    second = high.enqueue(double, 2)
    third = low.enqueue(double, 3, at_front=True)
    in_processes(1, ["high", "low"])
    ended = [Job.fetch(job.id, connection=r).ended_at for job in (second, third, first)]
    assert ended == sorted(ended)
    gone = low.enqueue(double, 4)
    gone.cancel()
    assert low.count == 0 and gone.get_status(refresh=True) == JobStatus.CANCELED
    low.enqueue(double, 5)
    assert low.empty() == 1 and low.count == 0


def test_scheduled_jobs(r):
    queue = Queue("scheduled", connection=r)
    soon = queue.enqueue_in(datetime.timedelta(seconds=1), double, 21)
    late = queue.enqueue_in(datetime.timedelta(days=1), double, 1)
    registry = ScheduledJobRegistry(queue=queue)
    assert set(registry.get_job_ids()) == {soon.id, late.id} and queue.count == 0
    scheduler = RQScheduler([queue], connection=r)
    assert scheduler.acquire_locks() == {"scheduled"}
    assert RQScheduler([queue], connection=r).acquire_locks() == set(), "only one holds the lock"

    def due():
        scheduler.enqueue_scheduled_jobs()
        return queue.count == 1

    until("the first is due", due)
    scheduler.release_locks()
    in_processes(1, ["scheduled"])
    assert soon.return_value() == 42 and registry.get_job_ids() == [late.id]


def test_a_worker_that_forks(r):
    """The usual kind, with its heartbeats and its channel for commands."""
    queue = Queue("forks", connection=r)
    jobs = [queue.enqueue(double, i) for i in range(5)]
    Worker([queue], connection=r).work(burst=True, logging_level="ERROR")
    assert [job.return_value() for job in jobs] == [0, 2, 4, 6, 8]
    assert Worker.all(connection=r) == []


def fresh():
    client = connect()
    client.flushall()
    return client


def main():
    return report(*run(tests_of(globals()), fresh))


if __name__ == "__main__":
    # What runs in a worker is known by its module's name, which this one's is not while it is the program.
    import rq_jobs

    sys.exit(rq_jobs.main())
